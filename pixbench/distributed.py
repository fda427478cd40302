"""Helpers around `torch.distributed`. Without a process group, there is one process, with rank 0.

Shapes: B local batch size, R number of processes.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def in_group() -> bool:
    """Return whether this process is in a process group."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if in_group() else 1


def rank() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if in_group() else 0


def processes_here() -> int:
    """Return the number of processes on this machine, as torchrun says."""
    return min(world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", world_size())))


def all_gather_cat(x: Tensor, grad: bool) -> Tensor:
    """Concatenate ``x`` (B, ...) of all processes in rank order: (R·B, ...). B must be the same in every process.

    With ``grad``, each process receives the sum of the gradients that all processes compute for its part. DDP's average over
    the processes is then the gradient of the mean of their losses. Without ``grad``, the result is detached.
    """
    if world_size() == 1:
        return x if grad else x.detach()
    return _Gather.apply(x) if grad else _gather(x.detach())


def _gather(x: Tensor) -> Tensor:
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _gather(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def any_process(*flags: bool) -> list[bool]:
    """Return for each flag whether it is set in at least one process. No GPU waits if the group has gloo for the host."""
    if world_size() == 1:
        return list(flags)
    together = torch.tensor(flags, dtype=torch.int32, device=_exchange_device())
    dist.all_reduce(together, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in together.tolist()]


def objects_of_all(value: Any) -> list[Any]:
    """Return ``value`` of every process, in rank order. It is pickled, so this is for small and rare things."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def same_in_all_processes(text: str) -> bool:
    """Return whether ``text``, of the same length in every process, is the same in all of them."""
    if world_size() == 1:
        return True
    rows = all_gather_cat(torch.tensor([list(text.encode())], device=_exchange_device()), grad=False)
    return bool((rows == rows[0]).all())


def has_host_group() -> bool:
    """Return whether the group exchanges tensors of the host through gloo, without a GPU."""
    return "gloo" in dist.get_backend_config()


def _exchange_device() -> str:
    return "cpu" if has_host_group() else "cuda"


def from_first(value: Any) -> Any:
    """Return the ``value`` of rank 0 in every process. It is pickled."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of ``value`` over all processes."""
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / world_size()
