"""Undo what a bad step did to the statistics of batch norm, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class StatisticsGuard:
    """Running means and variances of all batch norms in ``method``, as they were before a step.

    A forward pass with NaN puts NaN into them, where it would stay for ever. Weights need no guard, because the optimiser leaves
    them alone after a bad step, and queues take no such keys.
    """

    def __init__(self, method: nn.Module) -> None:
        norms = [module for module in method.modules() if isinstance(module, _BatchNorm)]
        found = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
        self._now: list[Tensor] = [statistic for statistic in found if statistic is not None]
        self._before = [torch.empty_like(statistic) for statistic in self._now]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the statistics."""
        if self._now:
            torch._foreach_copy_(self._before, self._now)

    @torch.no_grad()
    def restore(self, bad: Tensor) -> None:
        """Restore the statistics that `keep` remembered, if ``bad`` (a bool tensor) is True."""
        if bad.device.type == "cpu":
            if bad and self._now:
                torch._foreach_copy_(self._now, self._before)
            return
        for now, before in zip(self._now, self._before, strict=True):
            torch.where(bad, before, now, out=now)
