"""PyTorch's files without PyTorch, against PyTorch: what we read is what it reads, what we write it reads."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from pixbench.errors import UserError
from transfer.weights.containers import safe, torch_writer
from transfer.weights.containers.arrays import cast, dtype_of, in_order, is_stretched, type_name

TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    torch.uint16, torch.uint32, torch.uint64, torch.complex32,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip
OLD = 12
"""So many of them PyTorch can read from its files of before 1.6."""


def bits(values: Any) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and the numbers' bytes in the order of the indices, of an array or of a tensor."""
    if isinstance(values, torch.Tensor):
        flat = values.detach().resolve_conj().contiguous().reshape(-1)
        return type_name(values), tuple(values.shape), bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""
    return type_name(values), values.shape, in_order(values).tobytes()


def agree(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, torch.Tensor):
        return bits(ours) == bits(theirs)
    if isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(agree(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple) and not isinstance(theirs, torch.Size):
        return len(ours) == len(theirs) and all(map(agree, ours, theirs))
    return list(ours) == list(theirs) if isinstance(theirs, torch.Size) else ours == theirs


def views(dtypes: list[torch.dtype]) -> dict[str, torch.Tensor]:
    """Ways in which tensors lie in storages."""
    whole = torch.arange(120.0)
    images = torch.randn(4, 3, 2, 2)
    return {
        "whole": whole,
        "part of it": whole[17:31],
        "strided": whole[3::7],
        "as a matrix": whole.view(10, 12)[2:5, 1::2],
        "transposed": whole.view(10, 12).T,
        "channels last": images.contiguous(memory_format=torch.channels_last),
        "1x1 channels last": torch.randn(4, 3, 1, 1).contiguous(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(5),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.randn(3)),
        "frozen": nn.Parameter(torch.randn(3), requires_grad=False),
        **{str(dtype): torch.randint(0, 255, (16,), dtype=torch.uint8).view(dtype) for dtype in dtypes},
    }


def with_attribute() -> torch.Tensor:
    tensor = torch.ones(2)
    tensor.note = "x"
    return tensor


@pytest.mark.parametrize("as_zip", [True, False])
def test_every_type_and_every_way_to_lie_in_a_storage(tmp_path: Path, as_zip: bool) -> None:
    path, content = tmp_path / "x.pth", views(TYPES if as_zip else TYPES[:OLD])
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    assert agree(safe.read(path), torch.load(path, weights_only=True))
    assert agree(safe.read(path, checked=False), content)


@pytest.mark.parametrize("as_zip", [True, False])
def test_what_else_pytorch_reads_as_weights_only(tmp_path: Path, as_zip: bool) -> None:
    path, model = tmp_path / "x.pth", nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ordered": OrderedDict(a=[1, (2.5, None)], b={"c": True}),
        "counted": Counter("aab"),
        "set": {1, 2},
        "bytes": [b"abc", bytearray(b"abc")],
        "numbers": [2**70, -(2**31), 1j, float("inf")],
        "size": torch.Size([2, 3]),
        "attribute": with_attribute(),
        1: "a key that is no text",
    }
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    ours, theirs = safe.read(path), torch.load(path, weights_only=True)
    assert agree(ours, theirs)
    torch.save({"device": torch.device("cuda:0"), "dtype": torch.float16}, path)
    assert safe.read(path) == {"device": None, "dtype": "float16"}


def test_the_order_of_bytes_that_a_file_names(tmp_path: Path) -> None:
    path, other = tmp_path / "x.pth", tmp_path / "big.pth"
    torch.save({"a": torch.arange(5.0), "b": torch.arange(3)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if "/data/" in name:
                content = np.frombuffer(content, "<f4" if name.endswith("0") else "<i8").byteswap().tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else content)
    assert agree(safe.read(other), {"a": torch.arange(5.0), "b": torch.arange(3)})


def test_only_what_is_looked_at_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"large": torch.zeros(25_000_000), "small": torch.ones(3)}, path)
    script = (
        "import resource; from pathlib import Path; from transfer.weights.containers import safe; "
        f"used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = used(); "
        f"content = safe.read(Path({str(path)!r})); content['small'].sum(); print(used() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert int(done.stdout) < 50_000  # kB


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": (3, 1)}, "truncated or damaged"),
        ({"strides": (5,)}, "truncated or damaged"),
        ({"strides": (-1,)}, "truncated or damaged"),
        ({"offset": 1}, "truncated or damaged"),
        ({"offset": -1}, "truncated or damaged"),
        ({"shape": (-2,)}, "truncated or damaged"),
        ({"shape": (2**62,)}, "truncated or damaged"),
        ({"shape": (2,) * 65, "strides": (1,) * 65}, "no list of up to 64 numbers"),
        ({"numel": 4}, "not as long as it is said to be"),
        ({"numel": -1}, "without type, name or size"),
        ({"key": "7"}, "truncated or damaged"),
    ],
)
def test_tensors_that_reach_beyond_what_is_stored(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """A view that is wrong must never show other memory."""
    parts = {"key": "0", "numel": 3, "offset": 0, "shape": (3,), "strides": (1,)} | change
    arrays: list[np.ndarray] = []
    number = lambda value: b"".join(torch_writer._opcodes(value, arrays))  # noqa: E731
    pickled = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
        + number("storage") + b"ctorch\nFloatStorage\n" + number(parts["key"]) + number("cpu") + number(parts["numel"])
        + b"tQ" + number(parts["offset"]) + number(parts["shape"]) + number(parts["strides"])
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )  # fmt: skip
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/data/0", np.ones(3, np.float32).tobytes())
        archive.writestr("x/version", b"3\n")
    if change:
        with pytest.raises(UserError, match=says):
            safe.read(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["_rebuild_sparse_tensor", "_rebuild_qtensor", "_rebuild_meta_tensor_no_storage"])
def test_other_ways_to_build_tensors_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.pkl").write_bytes(f"\x80\x02ctorch._utils\n{name}\n)R.".encode("latin1"))
    with pytest.raises(UserError, match=rf"asks for torch\._utils\.{name}"):
        safe.read(tmp_path / "x.pkl")


def test_the_same_long_text_again_and_again(tmp_path: Path) -> None:
    """From one megabyte and a few bytes for each use, terabytes could be made."""
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20) + b"q\x00"
    use = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tRa"
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02](" + text + b"e" + use * 1000 + b".")
    with pytest.raises(UserError, match="more work than its size warrants"):
        safe.read(tmp_path / "x.pkl")


def test_a_bytearray_of_a_size_alone(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.")
    with pytest.raises(UserError, match="bytearray of a size without content"):
        safe.read(tmp_path / "x.pkl")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(PLAIN, st.lists(st.tuples(st.sampled_from(["<f4", "<i8", "<f2"]), st.lists(st.integers(0, 4), max_size=4))))
def test_pytorch_reads_what_we_write(tmp_path: Path, said: Any, shapes: list[tuple[str, list[int]]]) -> None:
    random = np.random.default_rng(0)
    arrays = {str(i): random.integers(0, 99, shape).astype(kind) for i, (kind, shape) in enumerate(shapes)}
    content, path = {"said": said, "model": arrays}, tmp_path / "x.pth"
    torch_writer.write_zip(content, path)
    for mmap in (False, True):
        theirs = torch.load(path, weights_only=True, mmap=mmap)
        assert theirs["said"] == said
        assert agree(arrays, theirs["model"])
    assert agree(safe.read(path), theirs)
    back = torch.load(path, weights_only=False)["model"]
    assert all(tensor.is_contiguous() for tensor in back.values())


def test_what_we_write_lies_as_pytorch_aligns_it(tmp_path: Path) -> None:
    path, arrays = tmp_path / "x.pth", {name: np.ones(n, np.float32) for name, n in (("a", 3), ("b", 70), ("c", 1))}
    torch_writer.write_zip(arrays, path)
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert [tensor.data_ptr() % 64 for tensor in loaded.values()] == [0, 0, 0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("as_zip", [True, False])
def test_whatever_is_damaged_we_read_what_pytorch_reads(tmp_path: Path, as_zip: bool) -> None:
    """Under right checksums. PyTorch also refuses pickles that it did not write for reasons that touch no tensor."""
    stream, path, taken = io.BytesIO(), tmp_path / "x.pth", Counter[bool]()
    torch.save(
        {"a": torch.arange(6.0).view(2, 3), "b": [torch.ones(2).half(), 7]},
        stream,
        _use_new_zipfile_serialization=as_zip,
    )
    whole = stream.getvalue()

    def damaged(place: int, value: int) -> bytes:
        if not as_zip:
            content = bytearray(whole)
            content[len(pickle.dumps(torch.serialization.MAGIC_NUMBER, 2)) + place % 480] = value
            return bytes(content)
        made = io.BytesIO()
        with zipfile.ZipFile(stream) as old, zipfile.ZipFile(made, "w") as new:
            for name in old.namelist():
                record = bytearray(old.read(name))
                if name.endswith("data.pkl"):
                    record[place % len(record)] = value
                new.writestr(name, bytes(record))
        return made.getvalue()

    @settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**16), st.integers(0, 255))
    def run(place: int, value: int) -> None:
        path.write_bytes(damaged(place, value))
        with suppress(UserError):
            ours = safe.read(path)
            try:
                theirs = torch.load(path, map_location="cpu", weights_only=True)
            except (RuntimeError, TypeError, pickle.UnpicklingError):
                return
            taken[agree(ours, theirs)] += 1

    run()
    assert set(taken) == {True}


def test_types_numpy_does_not_know() -> None:
    values = torch.tensor([1.5, -2.0, float("inf"), 1e-40, 3.14]).bfloat16()
    array = values.view(torch.uint16).numpy().view(dtype_of("bfloat16"))
    assert type_name(array) == type_name(values) == "bfloat16"
    assert np.array_equal(cast(array, "float32"), values.float().numpy())
    assert cast(array, "int64") is None
    assert cast(np.float64([1 / 3]), "float32") is None
    assert cast(np.float64([1e300]), "float32") is None
    assert cast(np.float32([1.5]), "int64") is None
    assert np.isnan(cast(np.float64([np.nan]), "float32")).all()
    assert is_stretched(np.broadcast_to(np.float32(1), (5,)))
    assert not is_stretched(np.ones((3, 4))[::2, ::-1].T)
    assert not is_stretched(np.ones((0, 4)))


@pytest.mark.parametrize("name", ["x.pth", "x.pkl", "x.safetensors"])
def test_turning_one_file_into_another_needs_no_pytorch(
    tmp_path: Path, checkpoint: Callable[..., Path], name: str
) -> None:
    framework = "detectron2_fpn" if name.endswith("pkl") else "mmseg"
    script = (
        "import sys; from transfer.weights import convert; "
        f"convert({str(checkpoint())!r}, {str(tmp_path / name)!r}, {framework!r}, check_forward=False); "
        f"convert({str(tmp_path / name)!r}, {str(tmp_path / 'y.pth')!r}, 'mmseg', check_forward=False); "
        "bad = {'torch', 'detectron2', 'mmseg', 'mmengine'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
