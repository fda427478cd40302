"""Files nobody vouches for: whatever is in them, out come plain data or one clear sentence."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pixbench.errors import UserError
from transfer.weights.containers import safe
from transfer.weights.containers.arrays import equal, fingerprint, type_name


class Runs:
    """Unpickles to a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], tuple(self.call[1:])


def _write_pickle(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_and_containers_of_every_protocol(tmp_path, protocol):
    content = {
        "model": OrderedDict(a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.float32([[1, 2], [3, 4]]).T),
        "big": np.arange(3, dtype=">f4"),
        "none": [None, True, 1.5, "text", (b"bytes", np.zeros((), np.int64))],
    }
    back = safe.read(_write_pickle(tmp_path / "x.pkl", content, protocol))
    np.testing.assert_array_equal(back["model"]["a"], content["model"]["a"])
    np.testing.assert_array_equal(back["model"]["b"], content["model"]["b"])
    np.testing.assert_array_equal(back["big"], [0, 1, 2])
    assert type_name(back["big"]) == "float32"
    assert back["none"][:4] == [None, True, 1.5, "text"]
    assert back["none"][4][0] == b"bytes"
    assert back["none"][4][1].shape == ()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ((os.system, "touch {mark}"), "posix.system"),
        ((eval, "open('{mark}', 'w')"), "builtins.eval"),
        ((getattr, "text", "upper"), "builtins.getattr"),
        ((np.load, "{mark}"), "numpy.load"),
        ((np.ndarray, (10**12,)), "numpy array of a size"),
        ((np.dtype, "O"), "numpy type 'O'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pickle_that_wants_to_run_something_is_refused_by_name(tmp_path, call, name):
    mark = tmp_path / "ran"
    call = (call[0], *(a.format(mark=mark) if isinstance(a, str) else a for a in call[1:]))
    path = _write_pickle(tmp_path / "evil.pkl", {"model": Runs(*call)})
    with pytest.raises(UserError, match=name):
        safe.read(path)
    assert not mark.exists()


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pytorch_file_that_wants_to_run_something_is_refused_by_name(tmp_path, as_zip):
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    torch.save({"model": Runs(os.system, f"touch {mark}")}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(UserError, match=r"evil\.pth was refused: it asks for posix\.system"):
        safe.read(path)
    assert not mark.exists()


def _checkpoint_of_this_field() -> dict:
    """What the training scripts of others leave beside the weights."""
    return {
        "opt": argparse.Namespace(lr=1.5, data=Path("/data"), nested=argparse.Namespace(depth=50)),
        "best": np.float64(71.5),
        "epoch": np.int64(3),
        "counts": defaultdict(list, a=[1, 2]),
        "curve": np.arange(3, dtype=np.float32),
        "model": OrderedDict(w=nn.Parameter(torch.ones(2))),
    }


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_arguments_and_numpy_scalars_come_out_as_plain_data(tmp_path, container):
    path, content = tmp_path / "x.pth", _checkpoint_of_this_field()
    if container == "pickle":
        _write_pickle(path, content | {"model": {}})
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    back = safe.read(path)
    assert back["opt"] == {"lr": 1.5, "data": {}, "nested": {"depth": 50}}
    assert (back["best"], back["epoch"], back["counts"]) == (71.5, 3, {"a": [1, 2]})
    assert [type(back[key]) for key in ("opt", "best", "epoch", "counts", "model")] == [dict, float, int, dict, dict]
    np.testing.assert_array_equal(back["curve"], content["curve"])
    if container != "pickle":
        np.testing.assert_array_equal(back["model"]["w"], [1, 1])


@pytest.mark.frameworks
def test_what_mmengine_saves(tmp_path):
    from mmengine.config import ConfigDict
    from mmengine.logging import MessageHub

    hub = MessageHub.get_instance("test-weights-safe")
    hub.update_scalar("loss", 0.5)
    torch.save({"message_hub": hub.state_dict(), "meta": ConfigDict(a=1)}, tmp_path / "x.pth")
    assert safe.read(tmp_path / "x.pth")["message_hub"]["log_scalars"]["loss"]["_log_history"] == [0.5]


def test_getattr_of_anything_real_is_refused(tmp_path):
    torch.save({"model": Runs(getattr, "text", "upper")}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"asks for builtins\.getattr"):
        safe.read(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2).to_sparse(),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        torch.ones(2, device="meta"),
    ],
    ids=["sparse", "quantised", "meta"],
)
def test_tensors_without_plain_numbers_are_refused(tmp_path, tensor):
    torch.save({"model": tensor}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="refused"):
        safe.read(tmp_path / "x.pth")


_DEEP = b"\x80\x02}(" + b")" + b"\x85" * 500_000 + b"K\x01u."  # a tuple in a tuple in a tuple ..., as a key
_WIDE = b"\x80\x02}()" + b"2\x86" * 60 + b"K\x01u."  # a pair of a pair of ... the same
_MEMO = b"\x80\x02Nr\xff\xff\xff\x0f."  # the last of 2^28 places in the memo


@pytest.mark.parametrize("bomb", [_DEEP, _WIDE, _MEMO], ids=["stack", "time", "memory"])
@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_pickles_that_would_exhaust_python(tmp_path, bomb, container):
    path = tmp_path / "x.pth"
    if container == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in [("data.pkl", bomb), ("version", "3\n"), ("byteorder", "little")]:
                archive.writestr(f"x/{name}", content)
    else:
        torch.save(1, path, _use_new_zipfile_serialization=False)
        path.write_bytes(bomb if container == "pickle" else path.read_bytes()[:15] + bomb)
    if bomb is _MEMO and container != "legacy":
        assert safe.read(path) is None  # nothing is set aside for what is never stored
        return
    with pytest.raises(UserError, match="truncated or damaged"):
        safe.read(path)


def test_lists_nested_too_deep(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(UserError, match="nested too deep"):
        safe.read(path)


def test_records_larger_than_the_file_or_of_the_same_name(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"model": torch.zeros(5000)}, path)
    whole = path.read_bytes()
    directory = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"/data/0"))
    claims = bytearray(whole)
    claims[directory + 20 : directory + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(claims)
    with pytest.raises(UserError, match="claim to be larger than the file"):
        safe.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(whole)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(archive.namelist()[0], "again")
    with pytest.raises(UserError, match="two records have the same name"):
        safe.read(path)


def test_safetensors(tmp_path):
    path, weights = tmp_path / "x.safetensors", {"a": torch.rand(3, 2), "b": torch.zeros((), dtype=torch.int64)}
    save_file(weights, path)
    assert all(equal(safe.read(path)[name], tensor) for name, tensor in weights.items())
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b"x", whole.replace(b"F32", b"F99"), whole.replace(b'"b"', b'"a"')):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="truncated or damaged"):
            safe.read(path)


def test_a_fingerprint_is_compared(tmp_path):
    weights = {"a": torch.rand(3, 2)}
    about = {"backbone": {"depth": 50}, "sha256": fingerprint(weights, {"backbone": {"depth": 50}})}
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    pickled = _write_pickle(tmp_path / "x.pkl", {"model": arrays, safe.WEIGHTS_KEY: about})
    save_file(weights, tmp_path / "x.safetensors", {safe.WEIGHTS_KEY: json.dumps(about)})
    for path in (pickled, tmp_path / "x.safetensors"):
        content = safe.read(path)
        assert equal(content.get("model", content)["a"], weights["a"])
        path.write_bytes(
            path.read_bytes().replace(weights["a"].numpy().tobytes(), np.ones((3, 2), np.float32).tobytes())
        )
        with pytest.raises(UserError, match="not those that were written"):
            safe.read(path)
    save_file(weights, tmp_path / "x.safetensors", {safe.WEIGHTS_KEY: json.dumps(about | {"backbone": {"depth": 51}})})
    with pytest.raises(UserError, match="not those that were written"):
        safe.read(tmp_path / "x.safetensors")


def test_a_tar_archive_is_called_one(tmp_path):
    path = tmp_path / "x.pth.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "x.pth")
    with pytest.raises(UserError, match="tar archive"):
        safe.read(path)


def test_a_container_within_itself_is_refused(tmp_path):
    content: dict = {}
    content["model"] = [content]
    with pytest.raises(UserError, match="holds itself"):
        safe.read(_write_pickle(tmp_path / "x.pkl", content))


def test_shared_containers_are_walked_once(tmp_path):
    content: list = []
    for _ in range(100):  # 2^100 leaves if each were visited
        content = [content, content]
    safe.read(_write_pickle(tmp_path / "x.pkl", content))


def test_an_array_that_claims_more_than_there_is(tmp_path):
    path = tmp_path / "x.pkl"
    whole = pickle.dumps(np.zeros(200, np.float32), 4)
    path.write_bytes(whole.replace(b"K\xc8", b"K\xff", 1))  # 200 -> 255 elements
    assert path.read_bytes() != whole
    with pytest.raises(UserError, match="truncated or damaged"):
        safe.read(path)


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_truncated(tmp_path, kind, share):
    path = tmp_path / "x.pth"
    if kind == "pickle":
        _write_pickle(path, {"model": {"a": np.zeros(5000, np.float32)}})
    else:
        torch.save({"model": {"a": torch.zeros(5000)}}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: max(8, int(len(whole) * share))])
    with pytest.raises(UserError, match=r"x\.pth is (truncated or damaged|neither)"):
        safe.read(path)


def test_a_changed_byte_does_not_pass_in_silence(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"model": torch.ones(5000)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        safe.read(path)


def test_a_compressed_archive_is_refused(tmp_path):
    path, packed = tmp_path / "x.pth", tmp_path / "packed.pth"
    torch.save({"model": torch.zeros(5000)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UserError, match="compressed archive"):
        safe.read(packed)


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is a text file", b"\x89PNG\r\n\x1a\n", b"\x80\x04N", b"PK\x03\x04"]
)
def test_foreign_bytes(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pth"):
        safe.read(path)


def test_no_file_and_no_plain_file(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        safe.read(tmp_path / "nothing.pth")
    with pytest.raises(UserError, match="not a file"):
        safe.read(tmp_path)


def test_a_zip_of_something_else(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(UserError, match="truncated or damaged"):
        safe.read(path)
