"""Damaged files of every container: each is one `UserError`, or the weights are bit for bit what was written.

Deterministic; more than 500 files in the default tests, more than 2,000 in all. The backbone has one channel in its stem, so
that a file has 30 to 60 kB. Containers without checksums of their own (all but PyTorch's zip) carry the fingerprint that our
writers leave in them; without it nobody could tell a changed number from the right one.
"""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pixbench.errors import UserError
from pixbench.file_versions import WEIGHTS_KEY
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import Backbone, files, load, save, to_framework
from transfer.weights.naming import is_counter

pytestmark = pytest.mark.slow

DEPTHS = {"zip": 18, "legacy": 50, "pickle": 50, "safetensors": 18}
"""Detectron2 takes no narrow ResNet-18."""
EXAMPLES = {"zip": 350, "legacy": 260, "pickle": 800, "safetensors": 600}
PLACE = st.integers(0, 2**32 - 1)
OPCODES = st.sampled_from([ord(opcode.code) for opcode in pickletools.opcodes])


def fuzz(examples: int) -> settings:
    phases = [Phase.explicit, Phase.generate, Phase.shrink]
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=checks,
        phases=phases,
    )


@pytest.fixture(scope="module")
def backbones(backbone_of: Callable[[BackboneSpec], Backbone]) -> dict[str, Backbone]:
    """What each container holds."""
    return {container: backbone_of(BackboneSpec(depth, 1 / 64)) for container, depth in DEPTHS.items()}


@pytest.fixture(scope="module")
def originals(backbones: dict[str, Backbone], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    save(backbones["zip"], folder / "zip.pth", "mmseg")
    save(backbones["pickle"], folder / "pickle.pkl", "detectron2_fpn")
    save(backbones["safetensors"], folder / "safetensors.safetensors", "huggingface")
    content = pickle.loads((folder / "pickle.pkl").read_bytes())
    content["model"] = to_framework(backbones["legacy"], "detectron2_fpn")
    torch.save(content, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return {path.stem: path.read_bytes() for path in folder.iterdir()}


def _holds(path: Path, backbone: Backbone) -> bool:
    """False for a `UserError` with a message; anything else that is not exactly the backbone fails."""
    try:
        found = load(path)
    except UserError as error:
        return len(str(error)) < 20  # no message
    assert (found.spec, found.pixels) == (backbone.spec, backbone.pixels)
    assert all(torch.equal(found.state[n], t) for n, t in backbone.state.items() if not is_counter(n))
    return True


def _edit(whole: bytes, kind: str, a: int, b: int, length: int, starts: list[int]) -> bytes:
    """One damage; ``starts`` are the opcodes of a pickle."""
    a, b, content = a % len(whole), b % len(whole), bytearray(whole)
    if kind == "flip":
        content[a] ^= 1 << b % 8
    elif kind == "byte":
        content[a] = b % 256
    elif kind == "cut":
        del content[a:]
    elif kind == "remove":
        del content[a : a + length]
    elif kind == "insert":
        content[a:a] = whole[b : b + length]
    elif kind == "splice":
        content[a : a + length] = whole[b : b + length]
    elif kind == "opcode":
        content[starts[a % len(starts)]] = b % 256
    return bytes(content)


def edits(opcodes: bool) -> st.SearchStrategy[tuple[str, int, int, int]]:
    kinds = ["flip", "byte", "cut", "remove", "insert", "splice"] + ["opcode"] * 3 * opcodes
    return st.tuples(st.sampled_from(kinds), PLACE, st.one_of(OPCODES, PLACE), st.integers(1, 4000))


def _opcodes(whole: bytes, container: str) -> list[int]:
    if container not in ("pickle", "legacy"):
        return []
    stream, starts = io.BytesIO(whole), []
    for _ in range(1 if container == "pickle" else 5):
        starts += [position for _, _, position in pickletools.genops(stream)]
    return starts


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("share", [4, pytest.param(1, marks=pytest.mark.e2e)], ids=["some", "all"])
@pytest.mark.parametrize("container", EXAMPLES)
def test_damaged_bytes(
    tmp_path: Path, originals: dict[str, bytes], backbones: dict[str, Backbone], container: str, share: int
) -> None:
    whole, path, survived = originals[container], tmp_path / "x", []
    backbone = backbones[container]
    path.write_bytes(whole)
    assert _holds(path, backbone)
    starts = _opcodes(whole, container)

    @fuzz(EXAMPLES[container] // share)
    @given(edits(bool(starts)))
    def run(edit: tuple[str, int, int, int]) -> None:
        path.write_bytes(_edit(whole, *edit, starts))
        survived.append(_holds(path, backbone))

    run()
    assert len(survived) >= EXAMPLES[container] // share
    assert not all(survived)


@pytest.mark.filterwarnings("ignore")
def test_pickles_of_chance_under_a_right_checksum(tmp_path: Path, originals: dict[str, bytes]) -> None:
    whole, path = originals["zip"], tmp_path / "x.pth"

    @fuzz(80)
    @given(PLACE, OPCODES, st.integers(1, 3))
    def run(place: int, opcode: int, count: int) -> None:
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                record = bytearray(old.read(name))
                for i in range(count if name.endswith("data.pkl") else 0):
                    record[(place * (i + 1)) % len(record)] = opcode
                new.writestr(name, bytes(record))
        with suppress(UserError):
            load(path)  # any sound backbone will do: this file says, with the right checksum, that it was meant so

    run()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "value": lambda t: t + 1,
    "nan": lambda t: t * float("nan"),
    "infinite": lambda t: t + float("inf"),
    "shape": lambda t: t.reshape(-1)[:1].reshape(1, 1, 1, 1, 1),
    "transposed": lambda t: t.reshape(t.shape[::-1]),
    "double": lambda t: t.to(torch.float64),
    "half": lambda t: t.to(torch.float16),
    "integer": lambda t: t.to(torch.int32),
    "complex": lambda t: t.to(torch.complex64),
    "scalar": lambda t: t.reshape(-1)[0].item(),
    "text": lambda t: "weights",
}


@pytest.mark.parametrize("container", ["zip", "pickle", "safetensors"])
def test_changed_keys_and_tensors(
    tmp_path: Path, originals: dict[str, bytes], backbones: dict[str, Backbone], container: str
) -> None:
    """Written anew by the libraries themselves: in a zip, which has no fingerprint, a new value is then a new backbone."""
    path, original = tmp_path / f"x.{container}", tmp_path / "original"
    original.write_bytes(originals[container])
    backbone = backbones[container]

    @fuzz(60)
    @given(PLACE, st.sampled_from(["rename", "swap", "drop", *CHANGES]))
    def run(place: int, kind: str) -> None:
        content = files.read(original).value
        where = {"zip": "state_dict", "pickle": "model"}.get(container)
        arrays = content[where] if where else {k: v for k, v in content.items() if k != WEIGHTS_KEY}
        weights = {name: torch.as_tensor(array).clone() for name, array in arrays.items()}
        keys = list(weights)
        key, other = keys[place % len(keys)], keys[(place // len(keys)) % len(keys)]
        if kind == "rename":
            weights[key + "x"] = weights.pop(key)
        elif kind == "swap":
            weights[key], weights[other] = weights[other], weights[key]
        elif kind == "drop":
            del weights[key]
        else:
            weights[key] = CHANGES[kind](weights[key])
        if container == "safetensors":
            if not all(isinstance(value, torch.Tensor) for value in weights.values()):
                return
            about = {WEIGHTS_KEY: json.dumps(content[WEIGHTS_KEY])}
            save_file({name: tensor.clone() for name, tensor in weights.items()}, path, about)
        elif container == "pickle":
            as_array = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in weights.items()}
            path.write_bytes(pickle.dumps(content | {"model": as_array}, 4))
        else:
            torch.save(content | {"state_dict": weights}, path)
        if container == "zip" and kind in ("value", "swap", "double", "half", "integer"):
            try:
                found = load(path)
            except UserError:
                return
            assert torch.equal(found.state[key.removeprefix("backbone.")].double(), weights[key].double())
        else:
            _holds(path, backbone)

    run()
