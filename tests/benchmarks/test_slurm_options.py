"""The options of sbatch and srun that follow from the slurm block of a suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.jobs import Job
from benchmarks.launch.slurm_options import cores_of, job_options, options_of, time_limit
from pixbench.errors import UserError

JOB = Job("pretrain/a", ("python",), Path("/out"), gpus=8)


def test_options_are_for_all_or_for_a_kind() -> None:
    settings = {"time": 60, "gpus_per_node": 8, "nodes": 2, "pretrain": {"time": 600}, "convert": {"gres": "gpu:1"}}
    assert options_of(settings, "pretrain") == {"time": 600, "gpus_per_node": 8, "nodes": 2}
    assert options_of(settings, "convert") == {"time": 60, "gres": "gpu:1"}


@pytest.mark.parametrize(
    ("time", "sentence"),
    [
        (None, "no time for pretrain; add a whole number"),
        ("auto", "time: auto for pretrain, but its hours are not known"),
        ("1-00:00:00", "the time for pretrain is '1-00:00:00'; it must be a whole number of minutes"),
        (0, "is 0; it must"),
        (True, "is True; it must"),
    ],
)
def test_a_time_limit_is_a_number_of_minutes(time: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        time_limit({"time": time}, JOB)
    assert time_limit({"time": time, "pretrain": {"time": 600}}, JOB) == 600


def test_cores_are_asked_for_unless_they_are_given() -> None:
    """A job that loads no data needs one for each training process; what does not train, the site decides."""
    assert job_options({"time": 60}, JOB)["cpus_per_task"] == 8
    assert job_options({"time": 60, "cpus_per_task": 3}, JOB)["cpus_per_task"] == 3
    assert "cpus_per_task" not in job_options({"time": 60}, Job("convert/a", ("python",), Path("/out")))
    options = job_options({"time": 60, "cpus_per_gpu": 12, "gpus_per_task": 8}, JOB)
    assert "cpus_per_task" not in options
    assert cores_of(options, JOB) == 96


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"cpus_per_task": "64"}, "cpus_per_task is '64'; it must be a whole number"),
        ({"cpus_per_gpu": 0}, "cpus_per_gpu is 0"),
        ({"srun_args": "--cpu-bind=none"}, "srun_args is '--cpu-bind=none'; it must be written like "),
        ({"additional_parameters": ["nice"]}, "additional_parameters is "),
    ],
)
def test_wrong_values_are_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        job_options({"time": 60, **wrong}, JOB)


def test_an_automatic_time_follows_the_published_hours() -> None:
    words = ("transfer", "voc_c4", "--scale", "paper", "--set", "SOLVER.MAX_ITER=240")
    job = Job("transfer/a/voc_c4/seed0", ("python", "-m", "pixbench", *words), Path("/out"), gpus=8)
    whole = replace(job, command=job.command[:-2])
    assert 60 <= time_limit({"time": "auto"}, job) < time_limit({"time": "auto"}, whole) < 24 * 60
    alone = replace(whole, gpus=1)
    assert time_limit({"time": "auto"}, alone) == 24 * 60  # it saves and goes on
    with pytest.raises(UserError, match="its hours are not known"):
        time_limit({"time": "auto"}, replace(job, command=(*job.command[:6], "mini")))


def test_an_option_without_a_value_is_left_out() -> None:
    settings = {"time": 60, "qos": "long", "cpus_per_task": None, "pretrain": {"qos": None}}
    assert "qos" not in job_options(settings, JOB)
    assert job_options(settings, JOB) == job_options({"time": 60}, JOB)


def test_srun_gets_what_it_does_not_take_over() -> None:
    ours = job_options({"time": 60, "cpus_per_task": 3}, JOB)["srun_args"]
    assert ours[:2] == ["--cpus-per-task=3", "--kill-on-bad-exit=0"]
    assert ours[2].startswith("--wait=")
    own = job_options({"time": 60, "cpus_per_task": 3, "srun_args": ["--cpu-bind=none"]}, JOB)["srun_args"]
    assert own == [*ours, "--cpu-bind=none"]
    bare = job_options({"time": 60}, Job("convert/a", ("python",), Path("/out")))["srun_args"]
    assert bare == ours[1:]
    page = (Path(__file__).parents[2] / "docs" / "launching.md").read_text()
    assert all(f"`{option}`" in page for option in ours[1:])
