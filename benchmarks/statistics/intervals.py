"""Mean, standard deviation and 95 % interval of numbers over seeds.

A number belongs to a pre-training run and a seed of the evaluation. Runs that start from the same weights share what
pre-training did to them. So with several pre-training runs, the independent numbers are the means of these runs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy

Samples = Mapping[tuple[Hashable, Hashable], float]
"""(pre-training run, seed of the evaluation) -> number."""
LEVEL = 0.95
ENOUGH = 3
"""Fewest independent numbers for which an interval or a mark is given."""
SAME = "all seeds gave the same number, so the seed has no effect and says nothing about noise"


def t_factor(n: int) -> float:
    """Return by how many standard errors the 95 % interval of the mean of ``n`` numbers reaches to each side."""
    return float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1))


def too_few(n: int) -> str:
    """Return why ``n`` independent numbers are too few to say anything about noise; "" if they are enough."""
    if n >= ENOUGH:
        return ""
    if n == 1:
        return f"n = 1 is too small to say, since one number shows no noise; at least {ENOUGH} are needed"
    reach = (
        f"an interval of ± {t_factor(n):.1f} standard errors, where n = {ENOUGH} has one of ± {t_factor(ENOUGH):.1f}"
    )
    return f"n = {n} is too small to say ({reach}); at least {ENOUGH} are needed"


@dataclass(frozen=True)
class Estimate:
    """A mean with its spread and interval."""

    mean: float
    std: float | None
    """Sample standard deviation of the independent numbers; None for a single one."""
    n: int
    """Number of independent numbers."""
    low: float | None = None
    """Lower end of the 95 % interval; None if there is none, see ``reason``."""
    high: float | None = None
    reason: str = ""
    """Why there is no interval."""


def independent(samples: Samples) -> dict[Hashable, float]:
    """Return the independent numbers: one for each seed of a single pre-training run, else the mean of each pre-training run.

    With as many seeds in each run, the means of the runs are independent and normal if both kinds of noise are, whatever
    their shares: the analysis of a nested design with random factors (Montgomery, Design and Analysis of Experiments,
    nested designs). A bootstrap of so few runs would give intervals that are too short.
    """
    runs: dict[Hashable, list[float]] = {}
    for (run, _), value in samples.items():
        runs.setdefault(run, []).append(value)
    if len(runs) == 1:
        return {("seed", seed): value for (_, seed), value in samples.items()}
    return {("pre-training", run): float(np.mean(values)) for run, values in runs.items()}


def over_seeds(samples: Samples) -> Estimate:
    """Return mean, standard deviation and Student's t interval of the independent numbers in ``samples``.

    All are NaN if a number is NaN. The mean of an unequal number of seeds is that of the means of the pre-training runs.
    """
    values = np.array([*independent(samples).values()])
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Estimate(mean, None, n, reason=too_few(n))
    std = float(np.std(values, ddof=1))
    if reason := too_few(n) or (SAME if std == 0 else ""):
        return Estimate(mean, std, n, reason=reason)
    low, high = scipy.stats.t.interval(LEVEL, n - 1, mean, std / np.sqrt(n))
    return Estimate(mean, std, n, float(low), float(high))
