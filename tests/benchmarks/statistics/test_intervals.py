"""Intervals over seeds and over images: known answers, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.statistics.images import over_images
from benchmarks.statistics.intervals import SAME, independent, over_seeds, t_factor, too_few
from pixbench.errors import UserError

SLEEP = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
"""R's data set `sleep` (Student 1908), first drug."""
DYESTUFF = {
    "A": (1545, 1440, 1440, 1520, 1580), "B": (1540, 1555, 1490, 1560, 1495), "C": (1595, 1550, 1605, 1510, 1560),
    "D": (1445, 1440, 1595, 1465, 1545), "E": (1595, 1630, 1515, 1635, 1625), "F": (1520, 1455, 1450, 1480, 1445),
}  # fmt: skip
"""R's data set `Dyestuff` (lme4; Davies 1947): yield of five preparations from each of six batches."""


def test_the_interval_of_seeds_is_that_of_students_t() -> None:
    """R: t.test(sleep$extra[sleep$group == 1])."""
    found = over_seeds({("", seed): value for seed, value in enumerate(SLEEP)})
    assert (found.mean, found.n) == (pytest.approx(0.75), 10)
    assert found.std == pytest.approx(1.78901, abs=1e-5)
    assert (found.low, found.high) == (pytest.approx(-0.5297804), pytest.approx(2.0297804))


def test_nested_seeds_are_judged_by_the_means_of_pre_training() -> None:
    """R: lmer(Yield ~ 1 + (1 | Batch), Dyestuff) gives 1527.50 with standard error 19.38; five degrees of freedom."""
    samples = {(batch, n): float(value) for batch, values in DYESTUFF.items() for n, value in enumerate(values)}
    found = over_seeds(samples)
    assert (found.mean, found.n) == (1527.5, 6)
    assert found.high is not None
    assert (found.high - found.mean) / 2.5706 == pytest.approx(19.38, abs=0.005)  # 2.5706: 97.5 % of t with 5
    assert independent(samples)["pre-training", "A"] == 1505


def test_too_few_seeds_have_no_interval_and_the_reason_in_numbers() -> None:
    assert t_factor(2) == pytest.approx(12.706, abs=1e-3)  # any table of Student's t
    assert t_factor(3) == pytest.approx(4.303, abs=1e-3)
    two = over_seeds({("", 0): 1.0, ("", 1): 2.0})
    assert (two.low, two.std) == (None, pytest.approx(math.sqrt(0.5)))
    assert "± 12.7 standard errors, where n = 3 has one of ± 4.3); at least 3 are needed" in two.reason
    assert over_seeds({("", 0): 1.0}).reason == too_few(1)
    assert over_seeds({("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 2.0, ("b", 1): 2.0}).n == 2


def test_a_seed_without_effect_is_no_evidence_of_precision() -> None:
    assert over_seeds({("", seed): 1.0 for seed in range(5)}).reason == SAME


def test_an_undefined_number_makes_all_undefined() -> None:
    found = over_seeds({("", 0): 1.0, ("", 1): math.nan, ("", 2): 2.0})
    assert math.isnan(found.mean)


@pytest.mark.parametrize("shared", [0.0, 1.0, 3.0])
def test_nested_intervals_hold_the_truth_95_times_in_100(shared: float) -> None:
    """Four pre-training runs × three seeds, with noise of pre-training from none to three times that of fine-tuning."""
    draw, hits, trials = np.random.default_rng(1), 0, 1000
    for _ in range(trials):
        values = shared * draw.normal(size=(4, 1)) + draw.normal(size=(4, 3))
        found = over_seeds({(run, seed): values[run, seed] for run in range(4) for seed in range(3)})
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0 <= found.high
    assert hits / trials == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / trials))


def images(number: int, draw: np.random.Generator, quality: float = 0.7) -> dict[str, np.ndarray]:
    """Intersection and union of three classes; the last is in one image of five."""
    union = draw.integers(50, 150, (number, 3)) * (draw.random((number, 3)) < (1, 1, 0.2))
    share = np.clip(draw.normal(quality, 0.2, (number, 3)), 0, 1)
    return {"images": np.arange(number).astype(str), "intersection": union * share, "union": union}


def test_the_metric_of_the_bootstrap_is_that_of_the_protocols() -> None:
    areas = {"intersection": np.array([[1, 0, 0], [2, 1, 0]]), "union": np.array([[2, 2, 0], [4, 2, 0]])}
    found = over_images([{"images": np.array(["a", "b"]), **areas}])
    assert found.mean == pytest.approx(100 * (3 / 6 + 1 / 4) / 2)  # the third class is nowhere
    assert "2 images are too few" in found.reason
    counted = over_images([{"images": np.array(["a", "b"]), **areas, "absent_counts": np.array(True)}])
    assert counted.mean == pytest.approx(100 * (3 / 6 + 1 / 4) / 3)
    left_out = {"images": np.array(["a", "b", "c"]), "value": np.array([1.0, np.nan, 4.0])}
    assert over_images([left_out]).mean == 2.5


def test_the_interval_of_a_mean_over_images_is_nearly_normal() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    found = over_images([{"images": np.arange(400).astype(str), "value": values}])
    reach = 1.96 * values.std(ddof=1) / 20
    assert (found.low, found.high) == (
        pytest.approx(values.mean() - reach, abs=0.15),
        pytest.approx(values.mean() + reach, abs=0.15),
    )
    assert found.std == pytest.approx(reach / 1.96, rel=0.1)


def test_a_difference_over_images_is_paired_by_their_names() -> None:
    draw = np.random.default_rng(0)
    one = images(60, draw)
    other = {name: array[::-1] for name, array in one.items()} | {"intersection": one["intersection"][::-1] * 0.99}
    found = over_images([one], [other])
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.mean < found.high < 1.0  # images alone move each of them by several points
    assert over_images([one]).std > 10 * found.std  # type: ignore[operator]


def test_different_images_are_refused_and_few_have_no_interval() -> None:
    draw = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"different images.*compare runs on the same"):
        over_images([images(30, draw)], [images(31, draw)])
    assert "19 images are too few" in over_images([images(19, draw)]).reason


def test_equal_runs_have_no_interval_of_their_difference() -> None:
    one = images(30, np.random.default_rng(0))
    assert over_images([one], [one]).reason == "every resample of the images gives the same number"


def test_intervals_over_images_hold_the_truth_nearly_95_times_in_100() -> None:
    """80 images drawn from a world of 20,000, a fifth of them with the rare class."""
    world, draw, hits, trials = images(20_000, np.random.default_rng(5)), np.random.default_rng(6), 0, 100
    truth = 100 * np.mean(world["intersection"].sum(0) / world["union"].sum(0))
    for trial in range(trials):
        chosen = draw.choice(20_000, 80, replace=False)
        found = over_images([{name: array[chosen] for name, array in world.items()}], seed=trial)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert hits / trials > 0.88  # a bootstrap of 80 images is a little short
