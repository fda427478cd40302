"""Files nobody vouches for: whatever is in them, out come tensors and plain data, or one clear sentence; nothing is run."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import enum
import functools
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pixbench.errors import UserError
from pixbench.file_versions import WEIGHTS_KEY
from transfer.weights import files
from transfer.weights.stand_ins import entries
from transfer.weights.tensors import fingerprint


class Colour(enum.Enum):
    RED = 1


class Settings(dict):
    """Filled like a dict, and with attributes of its own."""


class History(list):
    """Filled like a list."""


class Slotted:
    __slots__ = ("depth",)


class Runs:
    """Unpickles to a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], tuple(self.call[1:])


def write(path: Path, content: object, container: str = "zip") -> Path:
    if container == "pickle":
        path.write_bytes(pickle.dumps(content, 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    return path


CONTAINERS = ("zip", "legacy", "pickle")
FORBIDDEN: list[tuple[Callable, tuple, str]] = [
    (os.system, ("touch {mark}",), "posix.system"),
    (eval, ("open('{mark}', 'w')",), "builtins.eval"),
    (exec, ("open('{mark}', 'w')",), "builtins.exec"),
    (open, ("{mark}", "w"), r"_?io\.open"),
    (print, ("text",), "builtins.print"),
    (subprocess.Popen, (["touch", "{mark}"],), "subprocess.Popen"),
    (shutil.copy, (__file__, "{mark}"), "shutil.copy"),
    (getattr, ("text", "upper"), "builtins.getattr"),
    (np.load, ("{mark}",), "numpy.load"),
    (np.ndarray, ((10**12,),), "numpy array of a size"),
    (np.dtype, ("V4",), "numpy type 'V4'"),
    (torch.hub.load_state_dict_from_url, ("file://{mark}",), "torch.hub.load_state_dict_from_url"),
]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("function", "arguments", "name"), FORBIDDEN, ids=[case[2] for case in FORBIDDEN])
def test_a_file_that_wants_to_run_something_is_refused_by_name(tmp_path, container, function, arguments, name):
    mark = tmp_path / "ran"
    filled = [a.format(mark=mark) if isinstance(a, str) else a for a in arguments]
    path = write(tmp_path / "evil.pth", {"model": Runs(function, *filled)}, container)
    with pytest.raises(UserError, match=rf"evil\.pth was refused: it asks for a?r?r?a?y?s? ?o?f?a? ?{name}"):
        files.read(path)
    assert not mark.exists()


def _beside_weights() -> dict[str, Any]:
    """What the training scripts of others leave beside the weights."""
    from omegaconf import OmegaConf

    slotted, settings, loop = Slotted(), Settings(lr=0.1), argparse.Namespace()
    slotted.depth, settings.frozen, loop.parent = 50, True, None
    loop.parent = loop
    return {
        "arguments": argparse.Namespace(lr=1.5, data=Path("/data"), nested=argparse.Namespace(depth=50)),
        "omegaconf": OmegaConf.create({"backbone": {"name": "resnet50"}, "augs": [{"crop": 224}]}),
        "partial": functools.partial(torch.optim.SGD, lr=0.1),
        "enum": Colour.RED,
        "when": [datetime.datetime(2026, 1, 2), datetime.timedelta(3), datetime.date(2026, 1, 2)],
        "text": np.str_("x"),
        "best": np.float64(71.5),
        "epoch": np.int64(3),
        "random": np.random.RandomState(0).get_state(),
        "counts": defaultdict(list, a=[1, 2]),
        "often": Counter("aab"),
        "last": deque([1, 2], maxlen=5),
        "settings": settings,
        "history": History([1, 2]),
        "slots": slotted,
        "loop": loop,
        "class": nn.Linear,
        "function": torch.nn.functional.relu,
        "curve": np.arange(3, dtype=np.float32),
        "objects": np.array([1, "a", None], dtype=object),
        "dates": np.array(["2026-01-01"], dtype="datetime64[D]"),
        "generator": np.random.default_rng(0),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "model": OrderedDict(w=nn.Parameter(torch.ones(2)), b=np.ones(2, np.float32)),
    }


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", list(_beside_weights()))
def test_what_is_no_weight_does_not_stand_in_the_way(tmp_path, container, name):
    beside = _beside_weights()[name]
    if name == "class" and container == "legacy":
        with pytest.raises(UserError, match="asks for a network that was saved whole"):
            files.read(write(tmp_path / "x.pth", {name: beside}, container))
        return
    content = files.read(write(tmp_path / "x.pth", {name: beside, "weights": {"w": torch.ones(2)}}, container)).value
    assert torch.equal(content["weights"]["w"], torch.ones(2))


@pytest.mark.parametrize("container", CONTAINERS)
def test_objects_come_out_as_plain_data_and_are_named(tmp_path, container):
    held = _beside_weights()
    kept = {name: held[name] for name in ("arguments", "best", "text", "counts", "settings", "slots", "model")}
    content, asked = files.read(write(tmp_path / "x.pth", kept, container))
    assert entries(entries(content["arguments"])["nested"]) == {"depth": 50}
    assert entries(content["arguments"])["lr"] == 1.5
    assert (content["best"], content["text"]) == (71.5, "x")
    assert entries(content["counts"])["a"] == [1, 2]
    assert entries(content["settings"])["lr"] == 0.1
    assert entries(content["slots"])["depth"] == 50
    assert "argparse.Namespace" in asked
    assert f"{__name__}.Settings" in asked


@pytest.mark.frameworks
def test_what_mmengine_saves(tmp_path):
    from mmengine.config import ConfigDict
    from mmengine.logging import MessageHub

    hub = MessageHub.get_instance("test-weights-files")
    hub.update_scalar("loss", 0.5)
    torch.save({"message_hub": hub.state_dict(), "meta": ConfigDict(a=1)}, tmp_path / "x.pth")
    content = files.read(tmp_path / "x.pth").value
    assert content["meta"]["a"] == 1
    assert entries(content["message_hub"]["log_scalars"]["loss"])["_log_history"] == [0.5]


TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle", "safetensors"])
def test_tensors_of_every_type_and_every_place_in_a_storage(tmp_path, container):
    whole = torch.arange(120.0)
    content = {str(dtype): torch.arange(16).to(dtype) for dtype in TYPES}
    if container != "safetensors":
        content |= {
            "part": whole[17:31],
            "strided": whole[3::7],
            "matrix": whole.view(10, 12)[2:5, 1::2],
            "scalar": whole[3],
        }
    path = tmp_path / "x.pth"
    if container == "safetensors":
        save_file(content, path)
    else:
        write(path, content, container)
    found = files.read(path, checked=False).value
    assert found.keys() == content.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in content.items()
    )


def test_only_what_is_looked_at_is_loaded(tmp_path):
    torch.save({"large": torch.zeros(25_000_000), "small": torch.ones(3)}, tmp_path / "x.pth")
    script = (
        "import resource; from pathlib import Path; from transfer.weights import files; "
        f"used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = used(); "
        f"content = files.read(Path({str(tmp_path / 'x.pth')!r})).value; content['small'].sum(); print(used() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert int(done.stdout) < 50_000  # kB


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_and_containers_of_every_protocol(tmp_path, protocol):
    content = {
        "model": OrderedDict(a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.float32([[1, 2], [3, 4]]).T),
        "big": np.arange(3, dtype=">f4"),
        "none": [None, True, 1.5, "text", (b"bytes", np.zeros((), np.int64))],
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol))
    back = files.read(tmp_path / "x.pkl").value
    np.testing.assert_array_equal(back["model"]["a"], content["model"]["a"])
    np.testing.assert_array_equal(back["model"]["b"], content["model"]["b"])
    np.testing.assert_array_equal(back["big"], [0, 1, 2])
    assert back["none"][:4] == [None, True, 1.5, "text"]
    assert back["none"][4][0] == b"bytes"


def test_another_protocol_in_a_file_of_pytorch_is_one_sentence(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pth", pickle_protocol=4)
    with pytest.raises(UserError, match=r"x\.pth was saved with pickle protocol 4.*save its weights with torch\.save"):
        files.read(tmp_path / "x.pth")


def test_a_memory_larger_than_the_file_is_not_reserved(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02Nr\xff\xff\xff\x0f.")
    with pytest.raises(UserError, match="beyond the length of the file"):
        files.read(tmp_path / "x.pkl")


def test_sizes_beyond_the_file_are_refused(tmp_path):
    path = tmp_path / "x.pkl"
    whole = pickle.dumps(np.zeros(200, np.float32), 4)
    path.write_bytes(whole.replace(b"K\xc8", b"K\xff", 1))  # 200 -> 255 elements
    assert path.read_bytes() != whole
    with pytest.raises(UserError, match="truncated or damaged"):
        files.read(path)
    torch.save({"w": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "y.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"M\xe8\x03", b"M\xff\xff"))
    with pytest.raises(UserError, match="truncated or damaged"):
        files.read(tmp_path / "y.pth")


def test_two_records_of_one_name_and_compressed_ones(tmp_path):
    path, packed = tmp_path / "x.pth", tmp_path / "packed.pth"
    torch.save({"model": torch.zeros(5000)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="compressed archive"):
        files.read(packed)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(archive.namelist()[0], "again")
    with pytest.raises(UserError, match="two records have the same name"):
        files.read(path)


def test_safetensors_that_are_damaged(tmp_path):
    path, weights = tmp_path / "x.safetensors", {"a": torch.rand(3, 2), "b": torch.zeros((), dtype=torch.int64)}
    save_file(weights, path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole.replace(b"F32", b"F99"), whole.replace(b'"b"', b'"a"')):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="truncated or damaged"):
            files.read(path)


def test_a_fingerprint_is_compared(tmp_path):
    weights = {"a": torch.rand(3, 2)}
    about = {"backbone": {"depth": 50}, "sha256": fingerprint(weights, {"backbone": {"depth": 50}})}
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    pickled = write(tmp_path / "x.pkl", {"model": arrays, WEIGHTS_KEY: about}, "pickle")
    save_file(weights, tmp_path / "x.safetensors", {WEIGHTS_KEY: json.dumps(about)})
    for path in (pickled, tmp_path / "x.safetensors"):
        files.read(path)
        path.write_bytes(
            path.read_bytes().replace(weights["a"].numpy().tobytes(), np.ones((3, 2), np.float32).tobytes())
        )
        with pytest.raises(UserError, match="not those that were written"):
            files.read(path)
    save_file(weights, tmp_path / "x.safetensors", {WEIGHTS_KEY: json.dumps(about | {"backbone": {"depth": 51}})})
    with pytest.raises(UserError, match="not those that were written"):
        files.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("container", CONTAINERS)
def test_truncated(tmp_path, container, share):
    path = write(tmp_path / "x.pth", {"model": {"a": torch.zeros(5000)}}, container)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(8, int(len(whole) * share))])
    with pytest.raises(UserError, match=r"x\.pth is (truncated or damaged|neither)"):
        files.read(path)


def test_a_changed_byte_does_not_pass_in_silence(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"model": torch.ones(5000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        files.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is a text file", b"\x89PNG\r\n\x1a\n", b"\x80\x04N", b"PK\x03\x04", b"\x80\x02" + b"]" * 9000],
)
def test_foreign_bytes(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth"):
        files.read(tmp_path / "x.pth")


def test_other_files_are_called_what_they_are(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        files.read(tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="not a file"):
        files.read(tmp_path)
    with tarfile.open(tmp_path / "x.pth.tar", "w") as archive:
        archive.add(__file__, "x.pth")
    with pytest.raises(UserError, match="tar archive"):
        files.read(tmp_path / "x.pth.tar")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(UserError, match="truncated or damaged"):
        files.read(tmp_path / "x.zip")
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1)), tmp_path / "x.pth")
    with pytest.raises(UserError, match="asks for TorchScript's code"):
        files.read(tmp_path / "x.pth")


@pytest.mark.parametrize("state", [b"N}X\x08\x00\x00\x00__dict__Ns\x86", b"N}X\x07\x00\x00\x00__new__Ns\x86"])
@pytest.mark.parametrize(
    "name", [b"numpy\ndtype", b"numpy\nndarray", b"argparse\nNamespace", b"collections\nOrderedDict"]
)
def test_a_pickle_cannot_change_what_it_names(tmp_path, name, state):
    """BUILD sets attributes of anything; an honest file is read as before afterwards."""
    honest = write(
        tmp_path / "honest.pkl", {"a": np.ones(2, np.float32), "b": argparse.Namespace(c=OrderedDict(d=1))}, "pickle"
    )
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02c" + name + b"\n" + state + b"b.")
    with contextlib.suppress(UserError):
        files.read(tmp_path / "x.pkl")
    content = files.read(honest).value
    assert content["a"].tolist() == [1, 1]
    assert entries(content["b"])["c"] == {"d": 1}


@pytest.mark.parametrize("container", ["zip", "legacy"])
def test_what_a_file_did_is_forgotten_with_it(tmp_path, container):
    before = set(torch.serialization.get_safe_globals())
    files.read(write(tmp_path / "x.pth", {"a": argparse.Namespace(b=1)}, container))
    assert set(torch.serialization.get_safe_globals()) == before
