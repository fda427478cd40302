"""Agreement between two protocols: do they rank the same rows in the same order?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from benchmarks.statistics.intervals import LEVEL

FEWEST = 6
"""Fewest rows for which an interval is given."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's rank correlation of two lists of numbers."""

    tau: float
    """1 for the same order, −1 for the opposite order, about 0 for orders that have nothing to do with each other. NaN if one of
    the lists has no order."""
    n: int
    """Number of rows."""
    p: float
    """Two-sided p-value of τ = 0, exact without ties."""
    low: float | None = None
    """Lower end of the 95 % interval of τ; None if there is none, see ``reason``."""
    high: float | None = None
    reason: str = ""


def agreement(one: Sequence[float], other: Sequence[float]) -> Agreement:
    """Return Kendall's τ-b of two lists of numbers of the same rows, with an interval.

    The interval is that of Fieller, Hartley and Pearson (Biometrika 44, 1957, 470–481): atanh(τ) is nearly normal with
    variance 0.437 / (n − 4). It is about which rows were compared; the noise of their numbers makes τ smaller.
    """
    n = len(one)
    found = scipy.stats.kendalltau(one, other) if n > 1 else None
    tau, p = (float(found.statistic), float(found.pvalue)) if found else (float("nan"), float("nan"))
    if np.isnan(tau):
        return Agreement(tau, n, p, reason="there is no order: a list has fewer than two different numbers")
    if n < FEWEST:
        return Agreement(tau, n, p, reason=f"n = {n} rows are too few to say: at least {FEWEST} are needed")
    if abs(tau) > 1 - 1e-9:
        orders = "the same" if tau > 0 else "opposite"
        return Agreement(tau, n, p, reason=f"both orders are {orders}; then the formula has no interval")
    reach = float(scipy.stats.norm.ppf((1 + LEVEL) / 2)) * float(np.sqrt(0.437 / (n - 4)))
    return Agreement(tau, n, p, float(np.tanh(np.arctanh(tau) - reach)), float(np.tanh(np.arctanh(tau) + reach)))


def ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each number; 1 is the largest, and equal numbers share the mean of their ranks."""
    return [float(rank) for rank in scipy.stats.rankdata([-value for value in values])]
