"""DINOv3's schedule of the learning rate. Importing this file imports mmengine and registers the schedule."""

from __future__ import annotations

import math
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupOneCycleLR(LRSchedulerMixin, _ParamScheduler):
    """A linear warm-up, multiplied by a linear decay, then a cosine to 0 that has begun with the warm-up.

    This is facebookresearch/dinov3 eval/segmentation/schedulers.py with the settings of its config. As there, the first two
    iterations have the same rate, because the public training loop first advances the schedule after the second one.

    Args:
        optimizer: the optimiser, or mmengine's wrapper of it.
        end: number of iterations.
        warmup_iters: number of iterations of the warm-up.
        warmup_ratio: the first rate, as a share of the full one.
        options: those of mmengine's schedules.
    """

    def __init__(self, optimizer: Any, *, end: int, warmup_iters: int, warmup_ratio: float, **options: Any) -> None:
        self.warmup_iters, self.warmup_ratio = warmup_iters, warmup_ratio
        super().__init__(optimizer, end=end, **options)

    def _get_value(self) -> list[float]:
        factor = self.factor(max(self.last_step - 1, 0))
        return [base * factor for base in self.base_values]

    def factor(self, step: int) -> float:
        """Return the rate at ``step`` of the public schedule, as a share of the full one."""
        if step >= self.warmup_iters:
            return (1 + math.cos(math.pi * (step + 1) / self.end)) / 2
        warm = self.warmup_ratio + (1 - self.warmup_ratio) * step / self.warmup_iters
        return warm * (1 - step / self.end)
