"""The cores that jobs ask for, from the settings of their commands."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.commands import PIXBENCH
from benchmarks.jobs import Job
from benchmarks.launch.cores import cores_needed, data_workers, fewer_workers
from benchmarks.suite import plan, read_suite
from pixbench.errors import UserError
from pixbench.paths import CONFIGS
from pretrain.config import parse


def pretraining(*words: str, config: str = "simclr_1000ep", gpus: int = 8) -> Job:
    path = CONFIGS / "pretrain" / f"{config}.yaml"
    command = (*PIXBENCH, "pretrain", "--config", str(path), "--data.root", "/data", "--out", "/out", *words)
    return Job("pretrain/a", command, Path("/out/checkpoint.pth"), inputs=(path,), gpus=gpus)


def transfer(*words: str, protocol: str = "voc_c4", gpus: int = 8) -> Job:
    command = (*PIXBENCH, "transfer", protocol, "--init", "random", "--data-root", "/data", *words)
    return Job(f"transfer/a/{protocol}/seed0", command, Path("/out/result.json"), gpus=gpus)


@pytest.mark.parametrize("config", ["simclr_1000ep", "byol_300ep", "pixpro_100ep", "moco_v2_200ep"])
def test_pre_training_needs_a_core_for_each_process(config: str) -> None:
    workers = parse(["--config", str(CONFIGS / "pretrain" / f"{config}.yaml"), "--data.root", "/data"]).data.workers
    assert cores_needed(pretraining(config=config)) == 8 * workers + 8
    assert cores_needed(pretraining(config=config, gpus=0)) == workers + 1


def test_settings_of_the_row_count() -> None:
    assert data_workers(pretraining("--data.workers=3")) == 3
    with pytest.raises(UserError, match=r"^pretrain/a: .*data\.threads"):
        data_workers(pretraining("--data.threads=3"))


def test_a_framework_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmengine.config", None)
    with pytest.raises(
        UserError, match=r"^transfer/a/ade20k_fcn_80k/seed0 needs mmengine.config, which is not installed"
    ):
        data_workers(transfer(protocol="ade20k_fcn_80k"))


@pytest.mark.frameworks
def test_transfer_needs_a_core_for_each_process() -> None:
    assert data_workers(transfer("--set", "DATALOADER.NUM_WORKERS=7")) == 7
    assert data_workers(transfer("--scale", "mini")) == 0
    assert cores_needed(transfer(gpus=4)) == 4 * (data_workers(transfer()) + 1)


@pytest.mark.frameworks
def test_training_and_validation_take_turns() -> None:
    job = transfer("--set", "train_dataloader.num_workers=2", protocol="cityscapes_fcn16s")
    both = replace(job, command=(*job.command, "--set", "val_dataloader.num_workers=5"))
    assert data_workers(both) == 5


@pytest.mark.frameworks
def test_every_job_of_the_shipped_suite_has_cores(tmp_path: Path) -> None:
    jobs = plan(read_suite(CONFIGS / "suites" / "slurm.yaml"), tmp_path, tmp_path, PIXBENCH)
    assert all((data_workers(job) > 0) == (job.command_name in ("pretrain", "transfer")) for job in jobs)


def test_pre_training_gets_fewer_workers_where_cores_are_too_few() -> None:
    """One of them is always left; and the job is still the same one."""
    job = pretraining()
    assert fewer_workers(job, cores_needed(job)) == fewer_workers(job, None) == ((), "")
    words, sentence = fewer_workers(job, 64)
    assert words == ("--data.workers=7",)
    assert "7 data workers per training process instead of 16" in sentence
    assert "cpus_per_task: 136" in sentence
    assert data_workers(replace(job, command=(*job.command, *words))) == 7
    assert fewer_workers(job, 2)[0] == ("--data.workers=1",)
    assert fewer_workers(pretraining("--data.workers=0"), 1) == ((), "")


@pytest.mark.frameworks
def test_transfer_runs_keep_their_workers() -> None:
    """Their settings are their identity: a run that was started with others could not be continued."""
    words, sentence = fewer_workers(transfer("--set", "DATALOADER.NUM_WORKERS=4"), 16)
    assert words == ()
    assert "8 training processes and 32 data workers share 16 CPUs" in sentence
