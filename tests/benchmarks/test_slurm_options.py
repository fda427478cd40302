"""The options of sbatch and srun that follow from the slurm block of a suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.jobs import Job
from benchmarks.launch.slurm_block import check, without, wrong
from benchmarks.launch.slurm_options import cores_of, job_options, memory_of, options_of, says_memory, time_limit
from pixbench.errors import UserError

JOB = Job("pretrain/a", ("python",), Path("/out"), gpus=8)


def test_options_are_for_all_or_for_a_kind() -> None:
    settings = {"time": 60, "gpus_per_node": 8, "nodes": 2, "pretrain": {"time": 600}, "convert": {"gres": "gpu:1"}}
    assert options_of(settings, "pretrain") == {"time": 600, "gpus_per_node": 8, "nodes": 2}
    assert options_of(settings, "convert") == {"time": 60, "gres": "gpu:1"}


@pytest.mark.parametrize(
    ("time", "sentence"),
    [
        (None, "no time for pretrain; add whole minutes"),
        ("auto", "time: auto for pretrain, but its hours are not known"),
        ("1-", "time is '1-'; it must be whole minutes"),
        (0, "is 0; it must"),
        (True, "is True; it must"),
    ],
)
def test_a_time_limit_is_given(time: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        job_options({"time": time}, JOB)
    assert time_limit({"time": time, "pretrain": {"time": 600}}, JOB) == 600


@pytest.mark.parametrize(
    ("time", "limit"),
    [("1440", 1440), ("90:30", 91), ("24:00:00", 1440), ("4-00", 5760), ("4-12:30", 6510), ("4-00:00:01", 5761)],
)
def test_a_time_limit_may_have_slurms_forms(time: str, limit: int) -> None:
    assert job_options({"time": time}, JOB)["time"] == limit


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
        ({"memory": "400GB"}, r"there is no option 'memory'; did you mean mem\? "),
        ({"setup": "module load cuda"}, "setup is 'module load cuda'; it must be a list of shell lines"),
        ({"partition": ["a", "b"]}, "partition is .*; it must be a text"),
        ({"pretrain": 600}, "pretrain: 600 must be a mapping of options"),
        ({"pretrain": {"qo": "long"}}, "pretrain: there is no option 'qo'; did you mean qos"),
        ({"nodes": "2-4"}, "nodes is '2-4'"),
        ({"max_num_timeout": -1}, "max_num_timeout is -1"),
    ],
)
def test_wrong_values_are_one_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        job_options({"time": 60, **wrong}, JOB)


def test_all_mistakes_are_named_at_once() -> None:
    block = {"time": "soon", "memory": "4GB", "setup": "x", "transfer": {"mem": [], "time": 60}, "convert": 3}
    found = wrong(block)
    assert [(part, option) for part, option, _ in found] == [
        *(("", "time"), ("", "memory"), ("", "setup")),
        *(("convert", ""), ("transfer", "mem")),
    ]
    assert not wrong(without(block, found))
    with pytest.raises(
        UserError, match=r"(?s)time is 'soon'.*'memory'.*setup is 'x'.*convert: 3 .*transfer: mem is \[\]"
    ):
        check(block)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"mem": "400GB"}, 400 * 2**30),
        ({"mem": 1000}, 1000 * 2**20),
        ({"mem": 0}, None),  # all that the machine has
        ({"mem_per_gpu": "2G"}, 8 * 2**31),
        ({"mem_per_cpu": "1G", "cpus_per_task": 3}, 3 * 2**30),
        ({"additional_parameters": {"mem-per-cpu": "1T"}, "cpus_per_task": 1}, 2**40),
        ({}, None),
    ],
)
def test_memory_of_a_machine(options: dict[str, Any], given: int | None) -> None:
    asked = job_options({"time": 60, **options}, JOB)
    assert memory_of(asked, JOB) == given
    assert says_memory(asked) == bool(options)


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
