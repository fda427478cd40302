"""What the numbers of a run may be. All limits of the optimiser, the schedule and the methods are in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pixbench.errors import UserError

LARGEST = 2**63 - 1
"""Largest whole number of any setting."""


class Limit(NamedTuple):
    """What a setting must be, in words, and the function that tells whether a value is."""

    words: str
    holds: Callable[[Any], bool]


def _rises(milestones: Sequence[int]) -> bool:
    return all(before < after for before, after in zip((0, *milestones), milestones, strict=False))


POSITIVE = Limit("above 0", lambda value: value > 0)
NOT_NEGATIVE = Limit("at least 0", lambda value: value >= 0)
FRACTION = Limit("between 0 and 1", lambda value: 0 <= value <= 1)
FRACTIONS = Limit("between 0 and 1 each", lambda values: all(0 <= value <= 1 for value in values))
SIZE = Limit("between 1 and 1000000000", lambda value: 1 <= value <= 10**9)

LIMITS = {
    "optimizer.base_lr": NOT_NEGATIVE,
    "optimizer.momentum": Limit("at least 0 and below 1", lambda value: 0 <= value < 1),
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.trust_coefficient": POSITIVE,
    "optimizer.eps": POSITIVE,
    "optimizer.layer_decay": Limit("above 0 and at most 1", lambda value: 0 < value <= 1),
    "optimizer.clip_norm": NOT_NEGATIVE,
    "schedule.warmup_epochs": NOT_NEGATIVE,
    "schedule.warmup_multiplier": Limit("at least 1", lambda value: value >= 1),
    "schedule.min_lr": NOT_NEGATIVE,
    "schedule.milestones": Limit("epochs above 0, each later than the one before", _rises),
    "schedule.gamma": POSITIVE,
    "schedule.final_weight_decay": Limit("at least 0", lambda value: value is None or value >= 0),
    "method.threshold": POSITIVE,  # cells must be closer than it, so with 0 there would be no positive pair
    "method.momentum": FRACTION,
    "method.temperature": POSITIVE,
    "method.instance_temperature": POSITIVE,
    "method.distill_temperature": POSITIVE,
    "method.distill_weight": NOT_NEGATIVE,
    "method.alpha": NOT_NEGATIVE,
    "method.weight": NOT_NEGATIVE,
    "method.q_weight": NOT_NEGATIVE,
    "method.gamma": NOT_NEGATIVE,
    "method.clamp": Limit("between -1 and 1", lambda value: -1 <= value <= 1),
    "method.layers": Limit("0, 1 or 2", lambda value: value in (0, 1, 2)),
    "method.hidden": SIZE,
    "method.dim": SIZE,
    "method.channels": SIZE,
    "method.queue_size": SIZE,
    "method.bottleneck": SIZE,
    "method.patch_dim": SIZE,
    "method.frozen_epochs": NOT_NEGATIVE,
    "method.mask_ratios": FRACTIONS,
    "method.mask_spreads": FRACTIONS,
    "method.mask_start_epoch": NOT_NEGATIVE,
    "method.teacher_temperature": POSITIVE,
    "method.teacher_patch_temperature": POSITIVE,
    "method.teacher_temperature_start": POSITIVE,
    "method.teacher_warmup_epochs": NOT_NEGATIVE,
    "method.centre_momentum": FRACTION,
    "method.class_weight": NOT_NEGATIVE,
    "method.patch_weight": NOT_NEGATIVE,
    "method.classes": Limit("between 2 and 1000000000", lambda value: 2 <= value <= 10**9),
}
"""Limit of each number in these groups of settings, by its dotted name."""
OF_ONE_METHOD = {("densecl", "method.weight"): FRACTION}
"""Limits that replace those of `LIMITS`, by the name of the method and the dotted name."""


def check_limits(settings: Mapping[str, Any]) -> None:
    """Check all numbers of a run. ``settings`` are its values by dotted name.

    Raises:
        UserError: A number is not finite, too large, or outside its limit.
    """
    for key, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value}; it must be a finite number")
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int) and abs(number) > LARGEST:
                raise UserError(f"{key} is {str(number)[:30]}...; whole numbers go up to {LARGEST} (2^63 - 1)")
        limit = OF_ONE_METHOD.get((settings["method.name"], key)) or LIMITS.get(key)
        if limit is not None and not limit.holds(value):
            shown = list(value) if isinstance(value, list | tuple) else value
            raise UserError(f"{key} is {shown}; it must be {limit.words}")
