"""Fewer or more images a batch than published: everything that hangs on the batch moves with it, by the linear rule.

With k = batch / published batch, the learning rate is multiplied by k and every count of iterations divided by it, so
that a run sees as many images between any two events as the published one (Goyal et al., arXiv:1706.02677; Detectron2's
``auto_scale_workers`` does the same).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import yaml

from pixbench.errors import UserError
from pixbench.paths import CONFIGS

KEYS: dict[str, dict[str, Any]] = yaml.safe_load((CONFIGS / "protocols" / "scaling.yaml").read_text("utf-8"))
"""framework -> "batch": its config key; "rate" (grows with the batch) and "count" (shrinks): patterns of keys."""


def scaled(framework: str, config: dict[str, Any], batch: int, overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides that turn ``config`` (dotted keys) into one of ``batch`` images; none if it has that many already.

    The user's own ``overrides`` win; the batch itself may not be among them (`UserError`).
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
    for kind, factor in (("rate", Fraction(batch, before)), ("count", Fraction(before, batch))):
        for key, value in config.items():
            if value and any(fnmatchcase(key, pattern) for pattern in keys[kind]):
                found[key] = _times(value, factor)
    return {key: value for key, value in found.items() if key not in overrides}


def sentences(framework: str, config: dict[str, Any], found: dict[str, Any], accumulate: int) -> list[str]:
    """What a table says below a run scaled by ``found`` (see `scaled`), or that accumulates; of neither, nothing."""
    before = config[KEYS[framework]["batch"]]
    batch, lines = found.get(KEYS[framework]["batch"], before), []
    if found:
        factor = Fraction(batch, before)
        lines.append(
            f"batch {batch} instead of {before} by the linear rule: learning rate × {factor}, iterations, steps, warm-up "
            f"and periods × {1 / factor}"
        )
    if accumulate > 1:
        lines.append(
            f"batch of {batch} in {accumulate} parts, gradients accumulated: BatchNorm sees {batch // accumulate} images"
        )
    return lines


def divided(batch: int, accumulate: int, processes: int) -> int:
    """Images that each process takes at a time."""
    if batch % (accumulate * processes):
        parts = f"{accumulate} parts on " if accumulate > 1 else ""
        raise UserError(f"a batch of {batch} images cannot be shared by {parts}{processes} GPUs; choose a divisor")
    return batch // (accumulate * processes)


def _times(value: Any, factor: Fraction) -> Any:
    if isinstance(value, list | tuple):
        return [_times(entry, factor) for entry in value]
    return max(1, round(value * factor)) if isinstance(value, int) else float(f"{value * factor:.12g}")
