"""Read PyTorch's files without PyTorch: the zip that ``torch.save`` writes, and the format before PyTorch 1.6.

Arrays are on a memory map, so that only those in use are loaded. Allowed is what ``torch.load(weights_only=True)`` allows
(`torch/_weights_only_unpickler.py`), except tensors that are not plain numbers in main memory. The structure of the files is
defined in `torch/serialization.py`, that of tensors in a pickle in `torch/_utils.py`; tests compare with PyTorch itself.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import IO, Any, Literal

import numpy as np

from transfer.weights.containers.admitted import Call, NotAdmitted, StandIn, apply, without_stand_ins
from transfer.weights.containers.arrays import dtype_of
from transfer.weights.containers.unpickler import Unpickler

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
"""Bytes of a zip record's header before its name; the last four are the lengths of name and extra field."""
_LEGACY_VERSION = 1001
_ORDERS: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}
_AXES = 64
"""Largest number of dimensions in numpy."""


class _Storage:
    """A block of numbers of which tensors are views; its position in the file is set later."""

    memory: Any = None

    def __init__(self, dtype: str, numel: int) -> None:
        self.dtype, self.numel = dtype, numel

    def place(self, whole: memoryview, start: int, order: Literal["<", ">"] = "<") -> int:
        """Set the position in the file and return its end. Foreign byte order is converted once, for all views."""
        stored = dtype_of(self.dtype).newbyteorder(order)
        end = start + self.numel * stored.itemsize
        if not 0 <= start <= end <= len(whole):
            raise ValueError("its tensors claim to be larger than the file")
        self.memory = whole[start:end]
        if order == ">":
            self.memory = np.frombuffer(self.memory, stored).astype(dtype_of(self.dtype)).view(np.uint8).data
        return end


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


class _Tensor(StandIn):
    """Stands for a tensor until its storage has a place."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None = None) -> None:
        for sizes in (shape, strides, (offset,)):
            if not isinstance(sizes, list | tuple) or len(sizes) > _AXES or not all(map(_is_size, sizes)):
                raise ValueError(f"a shape that is no list of up to {_AXES} numbers")
        if len(shape) != len(strides):
            raise ValueError("a tensor of two shapes")
        if not isinstance(storage, _Storage):
            raise NotAdmitted("a tensor without a storage")
        self.parts = storage, offset, list(shape), list(strides), dtype

    def made(self) -> np.ndarray:
        """Return the array. The bounds are checked here because numpy's own check can overflow."""
        storage, offset, shape, strides, name = self.parts
        dtype = dtype_of(name or storage.dtype)
        if any(size == 0 for size in shape):
            return np.empty(shape, dtype)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if last >= len(storage.memory.cast("B")) // dtype.itemsize:
            raise ValueError("a tensor larger than its stored data")
        steps = [dtype.itemsize * stride for stride in strides]
        return np.ndarray(shape, dtype, storage.memory, dtype.itemsize * offset, steps)


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any = None, _hooks: Any = None, marks: Any = None
) -> _Tensor:
    """``torch._utils._rebuild_tensor`` and ``_v2``."""
    if marks:
        raise NotAdmitted("tensors that are conjugated or negated when looked at")
    return _Tensor(storage, offset, shape, strides)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    marks: Any = None,
) -> _Tensor:
    if dtype not in _TYPES:
        raise NotAdmitted("a tensor of no type")
    return _Tensor(*_tensor(storage, offset, shape, strides, marks=marks).parts[:4], dtype)


def _first(value: Any, *_: Any) -> Any:
    """Stands for functions that build a parameter: return its tensor."""
    return value


def _nothing(*_: Any) -> None:
    """Stands for objects that are not needed, such as the device of a tensor."""


_TYPES = (*STORAGES.values(), *_OTHER_TYPES.split())
ADMITTED: dict[str, Any] = {
    "torch._utils._rebuild_tensor": Call(_tensor),
    "torch._utils._rebuild_tensor_v2": Call(_tensor),
    "torch._utils._rebuild_tensor_v3": Call(_tensor_v3),
    "torch._utils._rebuild_parameter": Call(_first),
    "torch._utils._rebuild_parameter_with_state": Call(_first),
    # subclasses of tensors, and tensors that carry attributes, are no more than tensors
    "torch._tensor._rebuild_from_type_v2": Call(lambda function, _type, arguments, _state: apply(function, arguments)),
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
    "torch.Size": Call(lambda sizes: list(sizes) if isinstance(sizes, list | tuple) and len(sizes) <= _AXES else None),
    "torch.device": Call(_nothing),
    "torch.storage.UntypedStorage": "uint8",
}
ADMITTED |= {f"torch.{kind}Storage": name for kind, name in STORAGES.items()}
ADMITTED |= {f"torch.{name}": name for name in _TYPES}


class _Unpickler(Unpickler):
    def __init__(self, stream: IO[bytes], size: int) -> None:
        super().__init__(stream, size)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        return ADMITTED[full] if full in ADMITTED else super().find_class(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or type(pid[0]) is not str or pid[0] != "storage":
            return super().persistent_load(pid)
        _, dtype, key, _location, numel, *view = pid
        if any(part is not None for part in view):
            raise NotAdmitted("storages within storages, as PyTorch wrote before 0.4")
        if type(dtype) is not str or dtype not in _TYPES or type(key) is not str or not _is_size(numel):
            raise ValueError("a storage without type, name or size")
        storage = self.storages.setdefault(key, _Storage(dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            raise ValueError(f"storage {key} is said to be of two sizes")
        return storage


def read_zip(stream: IO[bytes], whole: memoryview, checked: bool) -> Any:
    """Return the content of the zip; with ``checked``, compare the checksum of every record first."""
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
    unpickler = _Unpickler(io.BytesIO(pickled), len(pickled))
    content = unpickler.load()
    for key, storage in unpickler.storages.items():
        info = records[f"{root}data/{key}"]
        header = whole[info.header_offset : info.header_offset + RECORD]
        start = info.header_offset + RECORD + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        if storage.place(whole, start, _ORDERS[order]) != start + info.file_size:
            raise ValueError(f"storage {key} is not as long as it is said to be")
    return without_stand_ins(content, {})


def _check(archive: zipfile.ZipFile, records: Mapping[str, zipfile.ZipInfo], size: int) -> None:
    if any("/code/" in f"/{name}" for name in records):
        raise NotAdmitted("TorchScript's code")
    if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
        raise ValueError("a compressed archive, as PyTorch never writes")
    if len(records) < len(archive.infolist()):
        raise ValueError("two records have the same name")
    if sum(info.file_size for info in records.values()) > size:
        raise ValueError("its records claim to be larger than the file")
    if any(info.file_size != info.compress_size for info in records.values()):
        raise ValueError("its records are not as long as they are said to be")


def read_legacy(stream: IO[bytes], whole: memoryview) -> Any:
    """Read five pickles (magic number, version, system, content, keys of the storages), then each storage after its length.

    ``stream`` is at the second pickle.
    """
    size = len(whole)
    version = Unpickler(stream, size).load()
    if type(version) is not int or version != _LEGACY_VERSION:
        raise ValueError("a version that PyTorch never wrote")
    Unpickler(stream, size).load()  # the system, which is not needed: numbers are always little-endian
    unpickler = _Unpickler(stream, size)
    content = unpickler.load()
    keys = Unpickler(stream, size).load()
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise ValueError("names of storages that are no texts")
    if len(keys) != len(unpickler.storages) or set(keys) != unpickler.storages.keys():
        raise ValueError("the storages are not those that its tensors use")
    end = stream.tell()
    for key in keys:
        start, storage = end + 8, unpickler.storages[key]
        if int.from_bytes(whole[end:start], "little") != storage.numel:
            raise ValueError(f"storage {key} is not as long as it is said to be")
        end = storage.place(whole, start)
    return without_stand_ins(content, {})
