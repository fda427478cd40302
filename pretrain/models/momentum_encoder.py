"""Momentum encoder ("target network" in BYOL): a copy of the student that follows it slowly and gets no gradient."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from pretrain.schedule import ema_momentum

Network = TypeVar("Network", bound=nn.Module)


class MomentumEncoder(nn.Module):
    """Exponential moving average of some modules of a student, under the same names.

    Only parameters are averaged; the copy computes BN statistics in its own forward passes (as in the official code).
    Drop path, dropout and other noise of training are for the student alone, as in MoBY, DINO and iBOT.
    The step counter of the momentum schedule is a buffer, so it is saved with the model and a resumed run continues the
    schedule. The number is also kept on the host: reading the buffer would wait for the device.

    Args:
        student: network to copy from; at the start the copies are equal to it.
        names: names of the sub-modules of ``student`` to copy.
        momentum: fraction of the old weights that the copy keeps per step, at the start.
        total_steps: number of steps in which the momentum grows to 1 along a cosine; None keeps it constant.
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
            self.add_module(name, without_noise(copy.deepcopy(student.get_submodule(name)).requires_grad_(False)))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._steps = 0
        self.register_load_state_dict_post_hook(_count_loaded)

    def train(self, mode: bool = True) -> MomentumEncoder:
        """Change the mode of batch norms; the rest computes as in evaluation."""
        super().train(mode)
        for name in self.names:
            without_noise(self.get_submodule(name))
        return self

    @property
    def steps(self) -> int:
        """Number of updates so far, without waiting for the device."""
        return self._steps

    def momentum(self) -> float:
        """Return the momentum of the next update."""
        if self.total_steps is None:
            return self.start
        return ema_momentum(self.start, self._steps, self.total_steps)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Set copy ← m · copy + (1 − m) · student for all parameters, and count one step."""
        weight = 1 - self.momentum()
        for name in self.names:
            ours: list[Tensor] = [*self.get_submodule(name).parameters()]
            theirs: list[Tensor] = [*student.get_submodule(name).parameters()]
            torch._foreach_lerp_(ours, theirs, weight)
        self.step += 1
        self._steps += 1


def _count_loaded(encoder: MomentumEncoder, keys: object) -> None:
    encoder._steps = int(encoder.step)


def without_noise(network: Network) -> Network:
    """Set all modules of ``network`` to evaluation, except batch norms and those with a `train` of their own, and return it.

    Attentions of timm (LeViT, TinyViT, EfficientFormer) keep a table of their parameters in evaluation.
    """
    for module in network.modules():
        has_statistics = any(name.startswith("running_") for name, _ in module.named_buffers(recurse=False))
        if not has_statistics and type(module).train is nn.Module.train:
            module.training = False
    return network
