"""Write the zip that ``torch.save`` writes, without PyTorch. Tests read it with ``torch.load``.

The structure of the file is that of `torch/serialization.py`, that of tensors in the pickle that of `torch/_utils.py`.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transfer.weights.containers.arrays import type_name
from transfer.weights.containers.torch_reader import RECORD, STORAGES

_ALIGNMENT = 64
"""Alignment of each tensor's first byte in the file, as in PyTorch."""


def write_zip(content: Any, path: Path) -> None:
    """Write plain data (dicts with text as keys, lists, tuples, text, numbers) and arrays as ``torch.save`` would."""
    arrays: list[np.ndarray] = []
    pickled = b"".join((b"\x80\x02", *_opcodes(content, arrays), b"."))
    records: dict[str, Any] = {"data.pkl": pickled, "byteorder": sys.byteorder.encode()}
    records |= {f"data/{number}": array.reshape(-1).view(np.uint8).data for number, array in enumerate(arrays)}
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, data in (records | {"version": b"3\n"}).items():
            info = zipfile.ZipInfo(f"archive/{name}")
            info.file_size = len(data)
            padding = -(stream.tell() + RECORD + len(info.filename) + 4) % _ALIGNMENT
            info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
            with archive.open(info, "w") as record:
                record.write(data)


def _opcodes(value: Any, arrays: list[np.ndarray]) -> Iterator[bytes]:
    """Yield the pickle of ``value`` in protocol 2. Arrays are appended to ``arrays`` and become tensors in the pickle."""
    if isinstance(value, dict):
        yield b"}("
        for key, entry in value.items():
            yield from _opcodes(key, arrays)
            yield from _opcodes(entry, arrays)
        yield b"u"
    elif isinstance(value, list | tuple):
        yield b"](" if isinstance(value, list) else b"("
        for entry in value:
            yield from _opcodes(entry, arrays)
        yield b"e" if isinstance(value, list) else b"t"
    elif isinstance(value, str):
        text = value.encode()
        yield b"X" + len(text).to_bytes(4, "little") + text
    elif value is None or isinstance(value, bool):
        yield {None: b"N", True: b"\x88", False: b"\x89"}[value]
    elif isinstance(value, int):
        digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        yield b"\x8a" + bytes([len(digits)]) + digits
    elif isinstance(value, float):
        yield b"G" + np.array(value, ">f8").tobytes()
    else:
        yield from _tensor_opcodes(value, arrays)


def _tensor_opcodes(array: np.ndarray, arrays: list[np.ndarray]) -> Iterator[bytes]:
    kind = next(kind for kind, name in STORAGES.items() if name == type_name(array))
    strides = tuple(stride // array.itemsize for stride in array.strides)
    yield b"ctorch._utils\n_rebuild_tensor_v2\n(("
    yield from _opcodes("storage", arrays)
    yield f"ctorch\n{kind}Storage\n".encode()
    for entry in (str(len(arrays)), "cpu", array.size):
        yield from _opcodes(entry, arrays)
    yield b"tQ"  # the storage's name, and the storage
    for part in (0, array.shape, strides, False):
        yield from _opcodes(part, arrays)
    yield b"ccollections\nOrderedDict\n)RtR"  # of hooks; and the call
    arrays.append(array)
