"""What jobs cost: hours of GPUs, and bytes of checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import costs
from benchmarks.commands import PIXBENCH
from benchmarks.jobs import Job
from benchmarks.suite import plan, read_suite
from pixbench.errors import UserError
from pixbench.paths import CONFIGS
from pretrain.config import parse
from pretrain.settings import RunConfig
from transfer.protocols import find_protocol


def config_of(name: str, *words: str) -> RunConfig:
    return parse(["--config", str(CONFIGS / "pretrain" / f"{name}.yaml"), *words])


@pytest.fixture(scope="module")
def jobs() -> dict[str, Job]:
    """The jobs of the paper's suite."""
    planned = plan(read_suite(CONFIGS / "suites" / "paper.yaml"), Path("out"), Path("data"), PIXBENCH)
    return {job.name: job for job in planned}


def test_the_rate_is_the_published_one_for_what_was_published() -> None:
    supervised = config_of("supervised_90ep")
    assert costs.images_per_second(supervised) == pytest.approx(costs.A100[supervised.precision])
    assert costs.pretraining(supervised).gpu_hours == pytest.approx(
        90 * costs.IMAGENET / costs.A100[supervised.precision] / 3600, rel=1e-3
    )
    for precision, rate in costs.A100.items():
        assert costs.images_per_second(replace(supervised, precision=precision)) == pytest.approx(rate)


def test_hours_of_jobs(jobs: dict[str, Job]) -> None:
    long, short = (costs.hours(jobs[f"pretrain/pixpro_{epochs}ep"], 8) for epochs in (400, 100))
    assert long == pytest.approx(4 * short)
    transfer = jobs["transfer/random/voc_c4/seed0"]
    protocol = find_protocol("voc_c4")
    assert costs.cost(transfer) == (protocol.gpu_hours, "V100")
    assert costs.hours(transfer, 4) == protocol.gpu_hours / 4
    half = replace(transfer, command=(*transfer.command, "--set", "SOLVER.MAX_ITER=12000"))
    assert costs.hours(half, 4) == pytest.approx(protocol.gpu_hours / 8)
    assert costs.hours(replace(transfer, command=(*transfer.command, "--scale", "mini")), 4) is None
    convert = next(job for name, job in jobs.items() if name.startswith("convert/"))
    assert costs.hours(convert, 1) is None


def test_hours_of_a_job_with_a_mistake(jobs: dict[str, Job]) -> None:
    job = jobs["pretrain/pixpro_100ep"]
    with pytest.raises(UserError, match="no_such"):
        costs.hours(replace(job, command=(*job.command, "--no_such=1")), 8)


def test_other_images_cost_their_share() -> None:
    config = config_of("pixpro_100ep")
    assert costs.pretraining(config, 2 * costs.IMAGENET).gpu_hours == pytest.approx(
        2 * costs.pretraining(config).gpu_hours, rel=1e-3
    )
    few = replace(config, data=replace(config.data, limit=costs.IMAGENET // 10))
    assert costs.pretraining(few).gpu_hours == pytest.approx(costs.pretraining(config).gpu_hours / 10, rel=0.01)


def test_checkpoints_that_are_kept() -> None:
    config = config_of("pixpro_100ep")  # every tenth of 100 epochs, the two newest, and one that is being written
    assert costs.disk(config) == 13 * costs.dry_step(config).checkpoint
    assert costs.disk(replace(config, keep_every=0)) == 3 * costs.dry_step(config).checkpoint
