"""Arrays of numbers as files hold them, without PyTorch. PyTorch's own tensors are taken as well where numpy takes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = Any
"""``numpy.ndarray``, or ``torch.Tensor`` in main memory."""

_SIZES = {"bfloat16": 2, "complex32": 4} | dict.fromkeys(
    ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"), 1
)


def dtype_of(name: str) -> np.dtype:
    """The type that PyTorch calls ``name``. One that numpy has not is a record of a field of that name, with the raw bits."""
    return np.dtype([(name, f"<u{_SIZES[name]}")]) if name in _SIZES else np.dtype(name)


def type_name(array: Array) -> str:
    """What PyTorch calls the array's type: "float32", "bfloat16"."""
    if isinstance(array, np.ndarray):
        return array.dtype.names[0] if array.dtype.names else array.dtype.name
    return str(array.dtype).removeprefix("torch.")


def in_order(array: np.ndarray) -> np.ndarray:
    """The same numbers, aligned, of this machine's order of bytes and in the order of the indices; no copy if they are.

    For a 1×1 kernel of a channels-last model numpy sees nothing to do, yet its strides would make PyTorch compute by another
    method; hence they are set anew.
    """
    ours = array.dtype.newbyteorder("=")
    return np.require(array, ours, ["C", "A"]).reshape(-1).reshape(array.shape)


def is_stretched(array: np.ndarray) -> bool:
    """Whether some stored numbers are used more than once. So can a few be declared an array of any size; no honest
    checkpoint does so."""
    reach = sum((n - 1) * abs(stride) for n, stride in zip(array.shape, array.strides, strict=True))
    return array.size > 0 and array.nbytes > reach + array.itemsize


def cast(array: np.ndarray, wanted: str) -> np.ndarray | None:
    """In another type, if no value changes by it; else None."""
    with np.errstate(all="ignore"):  # what does not survive is seen by comparing
        if type_name(array) == "bfloat16":  # the upper half of a float32
            other = (array["bfloat16"].astype(np.uint32) << 16).view(np.float32).reshape(array.shape)
            return other if wanted == "float32" else None
        other = array.astype(wanted)
        same = other.astype(array.dtype) == array
        if other.dtype.kind == "f":
            same |= array != array  # NaN stays NaN
        return other if same.all() else None


def is_finite(array: Array) -> bool:
    """Whether all values are. A sum is quicker, and cannot be finite if one of them is not."""
    values = np.asarray(array)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())


def equal(a: Array, b: Array) -> bool:
    """In type, shape and every value."""
    return type_name(a) == type_name(b) and np.array_equal(np.asarray(a), np.asarray(b))


def is_brief(value: Any, most: int = 100) -> bool:
    """Whether it is made of few plain parts, each short, those within others counted as often as they occur."""
    parts = [value]
    while parts and most:
        part, most = parts.pop(), most - 1
        if isinstance(part, dict):
            parts += [*part, *part.values()]
        elif isinstance(part, list | tuple):
            parts += part
        elif not _is_short(part):
            return False
    return not parts


def _is_short(value: Any) -> bool:
    if isinstance(value, str | int):
        return len(value) <= 100 if isinstance(value, str) else abs(value) < 2**63
    return value is None or isinstance(value, float)


def fingerprint(weights: Mapping[str, Array], about: Mapping[str, Any]) -> str:
    """sha256 over names, types, shapes and values and what is said of them, for containers that have no checksums."""
    digest = hashlib.sha256(json.dumps({**about, "sha256": ""}, sort_keys=True).encode())
    for name in sorted(weights):
        array = in_order(np.asarray(weights[name]))
        digest.update(f"{name} torch.{type_name(array)} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
