"""Helpers for arrays of numbers as stored in files, without PyTorch. PyTorch tensors are accepted where numpy accepts them."""

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
    """Return the numpy type for PyTorch's ``name``. If numpy lacks it: a record with one field of that name for the raw bits."""
    return np.dtype([(name, f"<u{_SIZES[name]}")]) if name in _SIZES else np.dtype(name)


def type_name(array: Array) -> str:
    """Return PyTorch's name of the array's type: "float32", "bfloat16"."""
    if isinstance(array, np.ndarray):
        return array.dtype.names[0] if array.dtype.names else array.dtype.name
    return str(array.dtype).removeprefix("torch.")


def in_order(array: np.ndarray) -> np.ndarray:
    """Return the array aligned, C-contiguous and in native byte order, without a copy if it is so already.

    For a 1×1 kernel of a channels-last model numpy changes nothing, but its strides would make PyTorch use another
    algorithm. Therefore the strides are always set again.
    """
    ours = array.dtype.newbyteorder("=")
    return np.require(array, ours, ["C", "A"]).reshape(-1).reshape(array.shape)


def is_stretched(array: np.ndarray) -> bool:
    """Whether some stored numbers are used more than once.

    In this way a hostile file can declare an array of any size with few numbers. Real checkpoints do not.
    """
    reach = sum((n - 1) * abs(stride) for n, stride in zip(array.shape, array.strides, strict=True))
    return array.size > 0 and array.nbytes > reach + array.itemsize


def cast(array: np.ndarray, wanted: str) -> np.ndarray | None:
    """Return the array in another type if no value changes, otherwise None."""
    with np.errstate(all="ignore"):  # changed values are found by the comparison
        if type_name(array) == "bfloat16":  # the upper half of a float32
            other = (array["bfloat16"].astype(np.uint32) << 16).view(np.float32).reshape(array.shape)
            return other if wanted == "float32" else None
        other = array.astype(wanted)
        same = other.astype(array.dtype) == array
        if other.dtype.kind == "f":
            same |= array != array  # NaN stays NaN
        return other if same.all() else None


def is_finite(array: Array) -> bool:
    """Whether all values are finite. The sum is tried first because it is faster: it is finite only if all values are."""
    values = np.asarray(array)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(values.sum())) or bool(np.isfinite(values).all())


def equal(a: Array, b: Array) -> bool:
    """Whether two arrays are equal in type, shape and every value."""
    return type_name(a) == type_name(b) and np.array_equal(np.asarray(a), np.asarray(b))


def is_brief(value: Any, most: int = 100) -> bool:
    """Whether ``value`` consists of at most ``most`` plain and short parts; nested parts count each time they occur."""
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
    """Return the sha256 of names, types, shapes, values and ``about``, for containers without checksums."""
    digest = hashlib.sha256(json.dumps({**about, "sha256": ""}, sort_keys=True).encode())
    for name in sorted(weights):
        array = in_order(np.asarray(weights[name]))
        digest.update(f"{name} torch.{type_name(array)} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
