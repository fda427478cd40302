"""Files nobody vouches for: whatever is in them, out come plain data or one clear sentence."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.errors import UserError
from transfer.weights import safe


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
    assert back["big"].dtype == np.float32
    assert back["big"].flags.writeable
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


def test_a_namespace_is_refused_by_name(tmp_path):
    path = tmp_path / "official.pth"
    torch.save({"opt": argparse.Namespace(lr=1), "model": {}}, path)
    with pytest.raises(UserError, match=r"argparse\.Namespace"):
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
