"""Scale the settings that depend on the batch size when a batch has more or fewer images than published.

This is the linear rule: with k = batch / published batch, the learning rate is multiplied by k and every number of
iterations is divided by k. Between any two events a run then sees as many images as the published one (Goyal et al.,
arXiv:1706.02677; Detectron2's ``auto_scale_workers`` does the same).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import yaml

from pixbench.errors import UserError
from pixbench.paths import CONFIGS

KEYS: dict[str, dict[str, Any]] = yaml.safe_load((CONFIGS / "protocols" / "scaling.yaml").read_text("utf-8"))
"""framework -> "batch": key of the batch size; "rate" and "count": patterns of the keys that grow or shrink with it."""


def scaled(framework: str, config: dict[str, Any], batch: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the overrides that give ``config`` (dotted keys) a batch of ``batch`` images; empty if it has one already.

    The user's ``overrides`` win: their keys are left out.

    Raises:
        UserError: ``batch`` is below 1, or ``overrides`` sets the batch too.
    """
    keys = KEYS[framework]
    name, before = keys["batch"], config[keys["batch"]]
    if batch < 1:
        raise UserError(f"--batch {batch} is not possible; choose 1 or more")
    if name in overrides:
        raise UserError(f"--batch and --set {name} are both given; leave out one")
    if batch == before:
        return {}
    found: dict[str, Any] = {name: batch}
    for direction, factor in (("rate", Fraction(batch, before)), ("count", Fraction(before, batch))):
        for key, value in config.items():
            if value and any(fnmatchcase(key, pattern) for pattern in keys[direction]):
                found[key] = _times(value, factor)
    return {key: value for key, value in found.items() if key not in overrides}


def sentences(framework: str, config: dict[str, Any], found: dict[str, Any], accumulate: int) -> list[str]:
    """Return the footnotes of a run that is scaled by ``found`` (see `scaled`) or accumulates; other runs have none."""
    before = config[KEYS[framework]["batch"]]
    batch, lines = found.get(KEYS[framework]["batch"], before), []
    if found:
        factor = Fraction(batch, before)
        lines.append(
            f"batch {batch} instead of {before} by the linear rule: learning rate × {factor}, iterations, milestones, "
            f"warm-up and periods × {1 / factor}"
        )
    if accumulate > 1:
        lines.append(
            f"batch of {batch} in {accumulate} parts, gradients accumulated: BatchNorm sees {batch // accumulate} images"
        )
    return lines


def divided(batch: int, accumulate: int, processes: int) -> int:
    """Return the number of images that each process computes at a time; UserError if it is not a whole number."""
    if batch % (accumulate * processes):
        parts = f"into {accumulate} parts " if accumulate > 1 else ""
        raise UserError(
            f"a batch of {batch} images cannot be split evenly {parts}on {processes} GPUs; choose divisors of the batch"
        )
    return batch // (accumulate * processes)


def _times(value: Any, factor: Fraction) -> Any:
    if isinstance(value, list | tuple):
        return [_times(entry, factor) for entry in value]
    return max(1, round(value * factor)) if isinstance(value, int) else float(f"{value * factor:.12g}")
