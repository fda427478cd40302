"""Learning rate and EMA momentum as functions of the step alone. A run needs only its step to continue.

Steps count optimiser updates from 0. Source: `contrast/lr_scheduler.py` and `contrast/models/PixPro.py` of the
official code.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from pixbench.errors import UserError


@dataclass(frozen=True)
class ScheduleConfig:
    """Settings of the learning rate: linear warm-up, then a cosine per step or a decay at given epochs.

    Args:
        name: "cosine" or "multistep".
        warmup_epochs: length of the warm-up in epochs; need not be an integer; 0 for none.
        warmup_multiplier: the warm-up starts at the peak rate divided by this number.
        min_lr: rate at the end of the cosine (not scaled by the batch size).
        milestones: epochs, counted from the start of the run, at which "multistep" multiplies the rate by `gamma`.
        gamma: factor of "multistep".
        final_weight_decay: weight decay at the end of the run, to which it goes from `optimizer.weight_decay` along a cosine
            (DINO, iBOT); null keeps it constant.
    """

    name: Literal["cosine", "multistep"] = "cosine"
    warmup_epochs: float = 5.0
    warmup_multiplier: float = 100.0
    min_lr: float = 1e-6
    milestones: tuple[int, ...] = (120, 160, 200)
    gamma: float = 0.1
    final_weight_decay: float | None = None


class LRSchedule:
    """Learning rate of every step of one run.

    Args:
        config: settings of the schedule.
        peak_lr: rate at the end of the warm-up, see `pretrain.optim.scaled_lr`.
        steps_per_epoch: number of optimiser updates per epoch.
        epochs: length of the run in epochs.

    Raises:
        UserError: The name is unknown, the warm-up is longer than the run, or the multiplier is below 1.
    """

    def __init__(self, config: ScheduleConfig, peak_lr: float, steps_per_epoch: int, epochs: float) -> None:
        if config.name not in ("cosine", "multistep"):
            raise UserError(f"schedule.name '{config.name}' is not known; choose cosine or multistep")
        if not 0 <= config.warmup_epochs <= epochs:
            raise UserError(
                f"schedule.warmup_epochs is {config.warmup_epochs:g} in a run of {epochs:g} epochs; "
                f"set it between 0 and {epochs:g}"
            )
        if config.warmup_multiplier < 1:
            raise UserError(f"schedule.warmup_multiplier is {config.warmup_multiplier:g}; set it to 1 or more")
        self.config, self.peak_lr, self.steps_per_epoch = config, peak_lr, steps_per_epoch
        self.warmup = config.warmup_epochs * steps_per_epoch
        self.total = epochs * steps_per_epoch

    def lr(self, step: int) -> float:
        """Return the rate of update ``step``. After the end of the run, the rate stays constant."""
        config, peak = self.config, self.peak_lr
        step = min(step, math.ceil(self.total))
        if step < self.warmup:
            start = peak / config.warmup_multiplier
            return start + (peak - start) * step / self.warmup
        if config.name == "multistep":
            return peak * config.gamma ** bisect_right([m * self.steps_per_epoch for m in config.milestones], step)
        fraction = min((step - self.warmup) / max(self.total - self.warmup, 1), 1.0)
        return config.min_lr + (peak - config.min_lr) * (1 + math.cos(math.pi * fraction)) / 2

    def weight_decay(self, start: float, step: int) -> float:
        """Return the weight decay of update ``step`` in a run that starts with ``start``."""
        end = self.config.final_weight_decay
        if end is None:
            return start
        return end + (start - end) * (1 + math.cos(math.pi * min(step / self.total, 1.0))) / 2


def teacher_temperature(start: float, end: float, epoch: int, warmup: int) -> float:
    """Return the momentum encoder's temperature in ``epoch``: it grows from ``start`` to ``end`` in ``warmup`` epochs.

    The first of these epochs has ``start`` and the last one ``end``. Source: `iBOTLoss` in `main_ibot.py` of bytedance/ibot.
    """
    if epoch >= warmup:
        return end
    return start + (end - start) * max(epoch, 0) / max(warmup - 1, 1)


def ema_momentum(start: float, step: int, total_steps: int) -> float:
    """Return the fraction of its old value that the momentum encoder keeps.

    The fraction rises along a cosine from ``start`` at step 0 to 1 at ``total_steps``.
    """
    fraction = min(step / total_steps, 1.0)
    return 1 - (1 - start) * (math.cos(math.pi * fraction) + 1) / 2
