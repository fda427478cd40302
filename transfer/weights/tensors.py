"""Small helpers for tensors and plain values that come out of a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def type_name(tensor: Tensor) -> str:
    """Return the name of the tensor's type: "float32", "bfloat16"."""
    return str(tensor.dtype).removeprefix("torch.")


def is_tensor(value: Any) -> bool:
    """Whether ``value`` is a tensor of plain numbers in main memory, or an array of numbers."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufc"
    plain = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    return plain and not (value.is_quantized or value.is_conj() or value.is_neg())


def as_tensor(value: Any) -> Tensor | None:
    """Return the tensor for a value that `is_tensor`; None for anything else."""
    if not is_tensor(value):
        return None
    if isinstance(value, np.ndarray):
        native = np.require(value, value.dtype.newbyteorder("="), ["C", "W"]).view(np.ndarray)
        try:
            return torch.from_numpy(native)
        except TypeError:  # numbers of a size that PyTorch does not have
            return None
    return value.detach()


def is_stretched(tensor: Tensor) -> bool:
    """Whether some stored numbers are used more than once.

    In this way a hostile file can declare a tensor of any size with few numbers. Real checkpoints do not.
    """
    reach = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.numel() > reach


def in_order(tensor: Tensor) -> Tensor:
    """Return the tensor contiguous and aligned, without a copy if it is so already.

    For a 1×1 kernel of a channels-last model PyTorch calls any strides contiguous, but uses another algorithm for them;
    therefore the strides are always set again.
    """
    flat = tensor.contiguous().reshape(-1)
    return (flat.clone() if flat.data_ptr() % flat.element_size() else flat).reshape(tensor.shape)


def alone(tensor: Tensor, taken: set[int]) -> Tensor:
    """Return a tensor that is `in_order` in a storage of its own; ``taken`` holds the storages of others and is extended.

    Otherwise ``torch.save`` would write all that the storage holds.
    """
    storage = tensor.untyped_storage()
    if storage.nbytes() != tensor.nbytes or (tensor.nbytes and storage.data_ptr() in taken):
        tensor = tensor.clone()
    taken.add(tensor.untyped_storage().data_ptr())
    return tensor


def cast(tensor: Tensor, wanted: torch.dtype) -> Tensor | None:
    """Return the tensor in another type if no value changes, otherwise None."""
    other = tensor.to(wanted)
    same = (other.to(tensor.dtype) == tensor) | (
        tensor != tensor if wanted.is_floating_point else False
    )  # NaN stays NaN
    return other if bool(torch.as_tensor(same).all()) else None


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite. The sum is tried first because it is faster: it is finite only if all values are."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal in type, shape and every value."""
    return a.dtype == b.dtype and torch.equal(a, b)


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


def fingerprint(weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Return the sha256 of names, types, shapes, values and ``about``, for containers without checksums."""
    digest = hashlib.sha256(json.dumps({**about, "sha256": ""}, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(f"{name} torch.{type_name(tensor)} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
