"""Compare rows with a baseline row: t tests of scipy, Holm's correction, effect size, and a mark for each row."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import scipy

from benchmarks.statistics.intervals import LEVEL, SAME, Samples, independent, too_few

HIGHER, LOWER, NOISE, TOO_SMALL = "higher", "lower", "within noise", "n too small to say"
SAME_DIFFERENCE = "every seed gives the same difference, so its noise is not known"
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Comparison:
    """A row minus the baseline."""

    difference: float
    n: tuple[int, int]
    """Independent numbers of the row and of the baseline."""
    test: str = ""
    """"paired t" or "Welch's t"; "" if there was none."""
    p: float | None = None
    """Two-sided p-value without correction."""
    low: float | None = None
    """Lower end of the 95 % interval of the difference, without correction."""
    high: float | None = None
    effect: float | None = None
    """Cohen's d: the difference in standard deviations (of the differences if paired: d_z)."""
    reason: str = ""
    """Why there is no test."""


@dataclass(frozen=True)
class Verdict:
    """A comparison among others with the same baseline."""

    comparison: Comparison
    p: float | None
    """p-value after Holm's correction."""
    mark: str
    """`HIGHER`, `LOWER`, `NOISE` or `TOO_SMALL`."""


def compare(row: Samples, baseline: Samples) -> Comparison:
    """Compare the independent numbers of a row with those of the baseline.

    They are paired if both have the same seeds: then the order of the data and the new layers were the same. Otherwise the
    test is Welch's, which does not need equal variances. The effect size is d_z = mean(difference) / std(difference) if
    paired (Lakens 2013, doi 10.3389/fpsyg.2013.00863), else the difference divided by the root of the mean of both
    variances.
    """
    one, other = independent(row), independent(baseline)
    difference, n = float(np.mean([*one.values()]) - np.mean([*other.values()])), (len(one), len(other))
    if np.isnan(difference):
        return Comparison(difference, n, reason="a number is undefined")
    if reason := too_few(min(n)):
        return Comparison(difference, n, reason=reason)
    if set(one) == set(other):
        a, b = np.array([*one.values()]), np.array([other[key] for key in one])
        spread, test = float(np.std(a - b, ddof=1)), "paired t"
    else:
        a, b = np.array([*one.values()]), np.array([*other.values()])
        spread, test = float(np.sqrt((np.var(a, ddof=1) + np.var(b, ddof=1)) / 2)), "Welch's t"
    if spread <= 1e-12 * max(abs(a).max(), abs(b).max()):  # nothing but rounding
        return Comparison(difference, n, reason=SAME_DIFFERENCE if test == "paired t" else SAME)
    found = scipy.stats.ttest_rel(a, b) if test == "paired t" else scipy.stats.ttest_ind(a, b, equal_var=False)
    low, high = found.confidence_interval(LEVEL)
    return Comparison(difference, n, test, float(found.pvalue), float(low), float(high), difference / spread)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979, 65–70).

    The chance that any of them is at most 0.05 by chance alone is then at most 5 %, however they depend on each other.
    scipy has other corrections only (`scipy.stats.false_discovery_control`).
    """
    order = np.argsort(p)
    steps = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1)
    return [float(value) for value in corrected]


def verdicts(comparisons: Mapping[Key, Comparison]) -> dict[Key, Verdict]:
    """Return a mark for each comparison with one baseline, with p-values corrected over all those that have a test."""
    tested = {key: found.p for key, found in comparisons.items() if found.p is not None}
    corrected = dict(zip(tested, holm([*tested.values()]), strict=True))
    return {
        key: Verdict(found, corrected.get(key), _mark(found, corrected.get(key))) for key, found in comparisons.items()
    }


def _mark(found: Comparison, p: float | None) -> str:
    if p is None:
        return TOO_SMALL
    return NOISE if p > 1 - LEVEL else HIGHER if found.difference > 0 else LOWER
