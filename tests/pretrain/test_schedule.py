"""Learning rate and EMA momentum curves against the official schedulers, and their edges."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pixbench.errors import UserError
from pretrain.schedule import LRSchedule, ScheduleConfig, ema_momentum

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "schedule.npz")


@pytest.mark.parametrize("name", sorted({n.split("/")[0] for n in GOLDEN if n.endswith("/lr")}))
def test_rates_of_the_official_schedulers(name: str) -> None:
    recorded = json.loads(str(GOLDEN[f"{name}/config"]))
    config = ScheduleConfig(
        {"step": "multistep"}.get(recorded["kind"], recorded["kind"]),
        recorded["warmup_epoch"],
        recorded["warmup_multiplier"],
        recorded["eta_min"],
        tuple(recorded["decay_epochs"] or ()),
        recorded["decay_rate"],
    )
    schedule = LRSchedule(config, recorded["base_lr"], recorded["n_iter_per_epoch"], recorded["epochs"])
    rates = [schedule.lr(step) for step in range(len(GOLDEN[f"{name}/lr"]))]
    np.testing.assert_allclose(rates, GOLDEN[f"{name}/lr"], rtol=1e-12)
    np.testing.assert_allclose(schedule.lr(len(rates)), GOLDEN[f"{name}/lr_after_last"], rtol=1e-12)
    assert schedule.lr(len(rates) + 100) == schedule.lr(len(rates))


@pytest.mark.parametrize("name", ["ema_small", "ema_ragged", "ema_started_at_6"])
def test_momentum_of_the_official_code(name: str) -> None:
    recorded = json.loads(str(GOLDEN[f"{name}/config"]))
    expected = GOLDEN[f"{name}/momentum"]
    steps = range(recorded["k_first"], recorded["k_first"] + len(expected))
    momenta = [ema_momentum(recorded["base_momentum"], step, recorded["K"]) for step in steps]
    np.testing.assert_allclose(momenta, expected, rtol=0, atol=1e-15)


def test_momentum_ends_at_one_and_stays() -> None:
    assert ema_momentum(0.99, 0, 10) == pytest.approx(0.99)
    assert ema_momentum(0.99, 10, 10) == ema_momentum(0.99, 11, 10) == 1


def test_run_that_is_all_warm_up() -> None:
    schedule = LRSchedule(ScheduleConfig(warmup_epochs=1), 4.0, 10, 1)
    assert schedule.lr(0) == pytest.approx(0.04)
    assert schedule.lr(10) == pytest.approx(4.0)


def test_warm_up_of_a_fraction_of_an_epoch() -> None:
    schedule = LRSchedule(ScheduleConfig(warmup_epochs=0.25, warmup_multiplier=10), 1.0, 10, 2)
    assert schedule.lr(1) == pytest.approx(0.1 + 0.9 / 2.5)
    assert 0.99 < schedule.lr(3) < 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ScheduleConfig(warmup_epochs=5), "warmup_epochs is 5 in a run of 3 epochs"),
        (ScheduleConfig(warmup_epochs=-1), "warmup_epochs is -1"),
        (ScheduleConfig(warmup_epochs=1, warmup_multiplier=0), "warmup_multiplier is 0"),
        (ScheduleConfig(name="poly"), "'poly' is not known"),
    ],
)
def test_impossible_schedules(config: ScheduleConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LRSchedule(config, 1.0, 10, 3)
