"""PyTorch's own files, without PyTorch: the zip that ``torch.save`` writes, and what it wrote before 1.6.

Read as arrays on a memory map, so that only those are loaded that somebody looks at. Only what
``torch.load(weights_only=True)`` admits is (`torch/_weights_only_unpickler.py`), and of that no tensors that are not plain
numbers in main memory. Layout of the files: `torch/serialization.py` and, for how tensors are named in a pickle,
`torch/_utils.py`; tests hold both ways against PyTorch itself.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

import numpy as np

from transfer.weights.containers.admitted import NotAdmitted, StandIn, Unpickler, plain, scan
from transfer.weights.containers.arrays import dtype_of

STORAGES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexDouble": "complex128",
    "ComplexFloat": "complex64",
    "Untyped": "uint8",
}
_OTHER_TYPES = "uint16 uint32 uint64 complex32 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
RECORD = 30
"""Bytes of a zip record's header in front of its name; the lengths of name and extra field are the last four."""
_LEGACY_VERSION = 1001
_AXES = 64
"""As many as numpy knows."""


class _Storage:
    """Numbers in one piece, of which tensors are views; where in the file they are turns out later."""

    memory: memoryview
    order: str
    """Of the bytes in a number: "<" or ">"."""

    def __init__(self, dtype: np.dtype, numel: int) -> None:
        self.dtype, self.numel = dtype, numel

    def place(self, whole: memoryview, start: int, order: str) -> int:
        """Put it at ``start`` in the file; where it ends there."""
        end = start + self.numel * self.dtype.itemsize
        if not 0 <= start <= end <= len(whole):
            raise ValueError("its tensors claim to be larger than the file")
        self.memory, self.order = whole[start:end], order
        return end


class _Tensor(StandIn):
    """Stands for a tensor until its storage has a place."""

    def __init__(
        self, storage: _Storage, offset: int, shape: list[int], strides: list[int], dtype: np.dtype | None
    ) -> None:
        self.parts = storage, offset, shape, strides, dtype

    def made(self) -> np.ndarray:
        """Numpy refuses a shape that reaches beyond the storage."""
        storage, offset, shape, strides, dtype = self.parts
        dtype = (dtype or storage.dtype).newbyteorder(storage.order)  # type: ignore[arg-type]
        steps = [dtype.itemsize * stride for stride in strides]
        return np.ndarray(shape, dtype, storage.memory, dtype.itemsize * offset, steps)


def _sizes(parts: Any) -> list[int]:
    """Lengths of the axes. No tuple: those can be nested so that to hash one takes for ever."""
    if not isinstance(parts, list | tuple) or len(parts) > _AXES:
        raise ValueError(f"a shape that is no list of up to {_AXES} numbers")
    return list(parts)


def _tensor(
    storage: _Storage, offset: int, shape: Any, strides: Any, _grad: Any = None, _hooks: Any = None, marks: Any = None
) -> _Tensor:
    """``torch._utils._rebuild_tensor`` and ``_v2``."""
    if marks:
        raise NotAdmitted("tensors that are conjugated or negated when looked at")
    return _Tensor(storage, offset, _sizes(shape), _sizes(strides), None)


def _tensor_v3(
    storage: _Storage,
    offset: int,
    shape: Any,
    strides: Any,
    _grad: Any,
    _hooks: Any,
    dtype: np.dtype,
    marks: Any = None,
) -> _Tensor:
    made = _tensor(storage, offset, shape, strides, marks=marks)
    made.parts = *made.parts[:4], dtype
    return made


def _first(value: Any, *_: Any) -> Any:
    """Parameters are no more than their tensors."""
    return value


def _call(function: Any, _type: Any, arguments: Iterable[Any], _state: Any) -> Any:
    """Subclasses of tensors, and tensors that carry attributes, are no more than tensors."""
    return function(*arguments)


def _nothing(*_: Any) -> None:
    """Where a tensor was does not matter."""


ADMITTED: dict[str, Any] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._tensor._rebuild_from_type_v2": _call,
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
    "torch.Size": _sizes,
    "torch.device": _nothing,
    "torch.storage.UntypedStorage": dtype_of("uint8"),
}
ADMITTED |= {f"torch.{kind}Storage": dtype_of(name) for kind, name in STORAGES.items()}
ADMITTED |= {f"torch.{name}": dtype_of(name) for name in (*STORAGES.values(), *_OTHER_TYPES.split())}


class _Unpickler(Unpickler):
    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self.storages: dict[Any, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        return ADMITTED[full] if full in ADMITTED else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or pid[0] != "storage":
            return super().persistent_load(pid)
        _, dtype, key, _location, numel, *view = pid
        if any(view):
            raise NotAdmitted("storages within storages, as PyTorch wrote before 0.4")
        storage = self.storages.setdefault(key, _Storage(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise ValueError(f"storage {key} is said to be of two sizes")
        return storage


def read_zip(stream: IO[bytes], whole: memoryview, checked: bool) -> Any:
    """Content of the zip; ``checked``: every record is as its checksum says, which a memory map would not notice."""
    with zipfile.ZipFile(stream) as archive:
        records = {info.filename: info for info in archive.infolist()}
        _check(archive, records, len(whole))
        if checked and (bad := archive.testzip()):
            raise ValueError(f"record {bad} does not match its checksum")
        names = [name for name in records if name.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise ValueError("an archive without a data.pkl, or with several")
        root = names[0].removesuffix("data.pkl")
        pickled = archive.read(names[0])
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in records else b"little"
    scan(io.BytesIO(pickled))
    unpickler = _Unpickler(io.BytesIO(pickled))
    content = unpickler.load()
    for key, storage in unpickler.storages.items():
        info = records[f"{root}data/{key}"]
        header = whole[info.header_offset : info.header_offset + RECORD]
        start = info.header_offset + RECORD + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        if storage.place(whole, start, ">" if order == b"big" else "<") != start + info.file_size:
            raise ValueError(f"storage {key} is not as long as it is said to be")
    return plain(content, {})


def _check(archive: zipfile.ZipFile, records: Mapping[str, zipfile.ZipInfo], size: int) -> None:
    if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
        raise ValueError("a compressed archive, as PyTorch never writes")
    if len(records) < len(archive.infolist()):
        raise ValueError("two records have the same name")
    if sum(max(info.file_size, info.compress_size) for info in records.values()) > size:
        raise ValueError("its records claim to be larger than the file")


def read_legacy(stream: IO[bytes], whole: memoryview) -> Any:
    """Five pickles (magic number, version, system, content, keys of the storages), then each storage behind its length."""

    def following() -> _Unpickler:
        start = stream.tell()
        scan(stream)
        stream.seek(start)
        return _Unpickler(stream)

    _, version = following().load(), following().load()
    if version != _LEGACY_VERSION:
        raise ValueError(f"version {version}, which PyTorch never wrote")
    following().load()  # of the system, which does not matter: numbers are little-endian whatever it was
    unpickler = following()
    content = unpickler.load()
    keys = following().load()
    if set(keys) != set(unpickler.storages) or len(keys) != len(unpickler.storages):
        raise ValueError("the storages are not those that its tensors use")
    end = stream.tell()
    for key in keys:
        start, storage = end + 8, unpickler.storages[key]
        if int.from_bytes(whole[end:start], "little") != storage.numel:
            raise ValueError(f"storage {key} is not as long as it is said to be")
        end = storage.place(whole, start, "<")
    return plain(content, {})
