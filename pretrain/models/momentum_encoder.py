"""The target branch: a copy of the student that follows it slowly and gets no gradient."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pretrain.schedule import ema_momentum


class MomentumEncoder(nn.Module):
    """Exponential moving average of some modules of a student, under the names they have there.

    Parameters only are averaged; BN statistics are the copy's own, from its own forward passes (as the official code).
    The counter of the momentum schedule is a buffer, so it is saved with the model and a resumed run goes on where it
    was.

    Args:
        student: what to copy from; at the start the copies are equal to it.
        names: of the sub-modules of ``student``.
        momentum: share of the old value that is kept, at the start.
        total_steps: momentum grows to 1 along a cosine in so many updates; None keeps it constant.
    """

    step: Tensor
    backbone: nn.Module
    projector: nn.Module

    def __init__(
        self, student: nn.Module, names: Iterable[str], momentum: float, total_steps: int | None = None
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.start, self.total_steps = momentum, total_steps
        for name in self.names:
            self.add_module(name, copy.deepcopy(student.get_submodule(name)).requires_grad_(False))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def momentum(self) -> float:
        """Of the next update."""
        if self.total_steps is None:
            return self.start
        return ema_momentum(self.start, int(self.step), self.total_steps)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """target ← m · target + (1 − m) · student, and count one step."""
        weight = 1 - self.momentum()
        for name in self.names:
            ours: list[Tensor] = [*self.get_submodule(name).parameters()]
            theirs: list[Tensor] = [*student.get_submodule(name).parameters()]
            torch._foreach_lerp_(ours, theirs, weight)
        self.step += 1
