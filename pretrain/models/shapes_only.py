"""Networks whose parameters have a shape, but no values: to look at them, on PyTorch's meta device, where nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_FILLS = {
    *(init.uniform_, init.normal_, init.constant_, init.kaiming_uniform_, init.kaiming_normal_),
    *(
        Tensor.uniform_,
        Tensor.normal_,
        Tensor.erfinv_,
        Tensor.clamp_,
        Tensor.mul_,
        Tensor.add_,
        Tensor.fill_,
        Tensor.zero_,
    ),
}
"""Functions that write values into the tensor that they are given, and change nothing else of it."""


class _Unfilled(TorchFunctionMode):
    """Leave out what would write values into tensors without values, where PyTorch spends most of the time to build a network."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in _FILLS:
            tensor = args[0] if args else given["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **given)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build networks with parameters that have a shape, but no values. The global random state does not change."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _Unfilled():
        yield
