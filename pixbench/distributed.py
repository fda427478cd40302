"""What the methods need of `torch.distributed`; without a process group there is one process, of rank 0.

Shapes: B local batch, R number of processes.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

GLOO_PAUSE_S = 0.5


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    return dist.get_world_size() if _initialised() else 1


def rank() -> int:
    return dist.get_rank() if _initialised() else 0


def leave_group() -> None:
    """Leave the process group, if there is one.

    Gloo's threads take the GIL to drop the tensors of the last exchange, and who destroys the group waits for them with the GIL
    in hand: without the pause a run may hang after its last step.
    """
    if _initialised():
        if dist.get_backend() == "gloo":
            time.sleep(GLOO_PAUSE_S)
        dist.destroy_process_group()


def all_gather_cat(x: Tensor, grad: bool) -> Tensor:
    """``x`` (B, ...) of every process, in the order of the ranks: (R·B, ...). B must be the same everywhere.

    With ``grad`` each process receives the sum of the gradients that all of them have for its part: DDP's average over
    processes then is the gradient of the mean of their losses. Without, the result is detached.
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
    """For each flag, whether it is set in any process."""
    if world_size() == 1:
        return list(flags)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    together = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(together, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in together.tolist()]


def mean_over_processes(value: Tensor) -> Tensor:
    if world_size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / world_size()
