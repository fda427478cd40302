"""Comparisons with a baseline and agreement of ranks: known answers, and no more false marks than promised."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.statistics.agreement import agreement, ranks
from benchmarks.statistics.comparisons import HIGHER, LOWER, NOISE, SAME_DIFFERENCE, TOO_SMALL, compare, holm, verdicts
from benchmarks.statistics.intervals import SAME, Samples

ONE = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
OTHER = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)
"""R's data set `sleep` (Student 1908): both drugs."""
LIGHT = (44.4, 45.9, 41.9, 53.3, 44.7, 44.1, 50.7, 45.2, 60.1)
SCORE = (2.6, 3.1, 2.5, 5.0, 3.6, 4.0, 5.2, 2.8, 3.8)
"""The example of R's `cor.test` (Hollander and Wolfe 1973, p. 187)."""


def row(values: object, first: int = 0) -> Samples:
    return {("", seed): float(value) for seed, value in enumerate(values, first)}  # type: ignore[arg-type, call-overload]


def test_the_same_seeds_are_paired() -> None:
    """R: t.test(sleep$extra[1:10], sleep$extra[11:20], paired = TRUE); effectsize::cohens_d gives -1.28."""
    found = compare(row(ONE), row(OTHER))
    assert (found.test, found.n) == ("paired t", (10, 10))
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == (pytest.approx(-2.4598858), pytest.approx(-0.7001142))
    assert found.difference == pytest.approx(-1.58)
    assert found.effect == pytest.approx(-4.0621 / math.sqrt(10), abs=1e-5)  # d_z = t / √n


def test_other_seeds_are_not_paired() -> None:
    """R: t.test(extra ~ group, data = sleep)."""
    found = compare(row(ONE), row(OTHER, first=1))
    assert found.test == "Welch's t"
    assert found.p == pytest.approx(0.07939, abs=5e-6)
    assert (found.low, found.high) == (pytest.approx(-3.3654832), pytest.approx(0.2054832))
    assert found.effect == pytest.approx(-1.58 / math.sqrt((1.789010**2 + 2.002249**2) / 2), abs=1e-5)


def test_pairs_are_found_by_seed_not_by_place() -> None:
    shuffled = {key: row(OTHER)[key] for key in reversed([*row(OTHER)])}
    assert compare(row(ONE), shuffled).p == pytest.approx(compare(row(ONE), row(OTHER)).p)


def test_pre_training_seeds_are_never_paired_with_seeds_of_fine_tuning() -> None:
    several = {(run, seed): float(run + seed * run) for run in range(3) for seed in range(3)}
    assert compare(several, {(0, seed): float(seed) for seed in range(3)}).test == "Welch's t"
    other = {key: value + key[0] * key[0] for key, value in several.items()}
    assert (compare(several, other).test, compare(several, other).n) == ("paired t", (3, 3))


def test_holm_as_in_the_book() -> None:
    """The four p-values of the Wikipedia article "Holm–Bonferroni method": first and last are rejected at 0.05."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_cannot_be_said_is_not_marked() -> None:
    few, same = compare(row([1.0, 2.0]), row([5.0, 6.0])), compare(row([1.0] * 4), row([2.0] * 4))
    missing = compare(row([1.0, math.nan, 2.0]), row([1.0, 2.0, 3.0]))
    assert "n = 2 is too small to say" in few.reason
    assert same.reason == SAME_DIFFERENCE
    assert compare(row([1.0] * 4), row([2.0] * 3)).reason == SAME
    assert missing.reason == "a number is undefined"
    assert {found.mark for found in verdicts({1: few, 2: same, 3: missing}).values()} == {TOO_SMALL}


def test_marks_follow_the_corrected_p_values() -> None:
    draw = np.random.default_rng(0)
    base = draw.normal(50, 1, 6)
    rows = {"up": base + 3, "down": base - 3, "same": base} | {str(n): base for n in range(5)}
    noisy = {name: row(values + draw.normal(0, 0.5, 6)) for name, values in rows.items()}
    found = verdicts({name: compare(samples, row(base)) for name, samples in noisy.items()})
    assert (found["up"].mark, found["down"].mark, found["same"].mark) == (HIGHER, LOWER, NOISE)
    for name, factor in (("down", 8), ("up", 7)):  # of eight comparisons, the two with the smallest p-values
        uncorrected = found[name].comparison.p
        assert uncorrected is not None
        assert found[name].p == pytest.approx(factor * uncorrected)


@pytest.mark.parametrize(
    ("seeds", "paired", "nested"), [(3, True, 1), (5, True, 1), (4, False, 1), (4, True, 2), (4, False, 3)]
)
def test_without_a_difference_at_most_5_in_100_are_marked(seeds: int, paired: bool, nested: int) -> None:
    """Four rows and a baseline, all of one quality: neither a comparison nor a table is marked by chance more often."""
    draw, tables, rows = np.random.default_rng(seeds), 300, 4
    marked = np.zeros((tables, rows), bool)
    for table in range(tables):
        shared = draw.normal(0, 1, seeds)  # what a seed does to every row
        spread = draw.uniform(0.3, 2, rows + 1)
        samples = []
        for place in range(rows + 1):
            runs = shared + draw.normal(0, spread[place], seeds)
            first = 0 if paired or not place else 100
            samples.append(
                {
                    ((first + run, seed) if nested > 1 else (0, first + run)): value + draw.normal(0, 0.5)
                    for run, value in enumerate(runs)
                    for seed in range(nested)
                }
            )
        found = verdicts({place: compare(samples[place], samples[0]) for place in range(1, rows + 1)})
        marked[table] = [verdict.mark != NOISE for verdict in found.values()]
    error = math.sqrt(0.05 * 0.95 / tables)
    assert marked.mean() <= 0.05
    assert marked.any(1).mean() <= 0.05 + 3 * error


def test_kendalls_tau_as_in_the_book() -> None:
    """R's cor.test: T = 26, tau = 0.4444444, exact p = 0.1194 (0.05972 on one side)."""
    found = agreement(LIGHT, SCORE)
    assert (found.tau, found.n) == (pytest.approx(4 / 9), 9)
    assert found.p == pytest.approx(2 * 0.05972, abs=1e-5)


def test_the_interval_of_tau_is_fiellers() -> None:
    """R's statpsych::ci.kendalltau(.05, .734, 40): standard error 0.05082, interval 0.6178 to 0.8188."""
    order = list(range(40))
    draw = np.random.default_rng(0)
    other = [*order]
    while agreement(order, other).tau > 0.736:  # swaps of neighbours
        place = int(draw.integers(0, 39))
        other[place], other[place + 1] = max(other[place : place + 2]), min(other[place : place + 2])
    found = agreement(order, other)
    assert found.tau == pytest.approx(0.734, abs=0.002)
    assert (found.low, found.high) == (pytest.approx(0.6178, abs=0.003), pytest.approx(0.8188, abs=0.003))


def test_agreement_that_cannot_be_said() -> None:
    assert "n = 5 rows are too few" in agreement(range(5), (1, 0, 2, 3, 4)).reason
    assert "both orders are the same" in agreement(range(8), range(8)).reason
    assert "both orders are opposite" in agreement(range(8), range(8, 0, -1)).reason
    for one, other in (([1.0], [2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])):
        assert math.isnan(agreement(one, other).tau)
        assert "no order" in agreement(one, other).reason


def test_intervals_of_tau_hold_the_truth_nearly_95_times_in_100() -> None:
    """Rows of two protocols with correlated numbers; Kendall's τ of two normal variables is 2/π · arcsin(ρ)."""
    draw, hits, trials, rho = np.random.default_rng(3), 0, 1000, 0.7
    for _ in range(trials):
        one = draw.normal(size=10)
        found = agreement(one, rho * one + math.sqrt(1 - rho**2) * draw.normal(size=10))
        hits += (
            found.low is not None and found.high is not None and found.low <= 2 / math.pi * math.asin(rho) <= found.high
        )
    assert 0.92 < hits / trials < 0.99


def test_ranks() -> None:
    assert ranks([10.0, 30.0, 20.0, 20.0]) == [4, 1, 2.5, 2.5]
