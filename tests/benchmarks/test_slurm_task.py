"""The task of a job on two machines, as two processes with the variables that Slurm sets."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.jobs import Job, Records
from benchmarks.launch.slurm_task import SlurmTask

pytestmark = pytest.mark.slow


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


class Machines:
    """Two machines that share a folder. What each runs is a shell script instead of torchrun."""

    def __init__(self, folder: Path, first: str, second: str, **env: str) -> None:
        script = folder / "command"
        script.write_text(f'#!/bin/sh\ncd {folder}\nif [ "$SLURM_NODEID" = 0 ]; then\n{first}\nelse\n{second}\nfi\n')
        script.chmod(0o755)
        self.env, self.folder, self.records = env, folder, Records(folder / "jobs")
        self.job = Job("pretrain/a", (str(script),), folder / "out")
        self.running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Machines:
        task = pickle.dumps(SlurmTask(self.job, self.records, self.folder / "a.log", save_s=1, stall_s=0))
        code = f"import pickle; pickle.loads({task!r})()"
        for node in ("0", "1"):
            both = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": "2"}
            own = {"SLURM_NODEID": node, "SLURM_PROCID": node, "SLURM_JOB_NODELIST": "localhost"}
            self.running.append(
                subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **both, **own, **self.env})
            )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            process.kill()
            process.wait()

    def there(self, name: str) -> bool:
        return (self.folder / name).exists()


def test_the_record_names_the_machine_that_failed(tmp_path: Path) -> None:
    """The second fails; the first only notices that its partner is gone."""
    wait = "while [ ! -f gone ]; do sleep 0.1; done"
    first = f"{wait}; echo 'pixbench: error: another process stopped'; exit 1"
    with Machines(tmp_path, first, "echo 'pixbench: error: the disk is on fire'; exit 3") as machines:
        assert machines.running[1].wait(60) != 0
        record = machines.records.read(machines.job)
        assert record["status"] == "failed"
        assert record["reason"].startswith("node 1 (")
        assert record["reason"].endswith("): the disk is on fire")
        (tmp_path / "gone").touch()
        assert machines.running[0].wait(60) != 0
    reasons = machines.records.read(machines.job)["reason"].split("; ")
    assert "the disk is on fire" in reasons[0]
    assert reasons[1].startswith("node 0 (")


def test_others_end_after_the_first_machine(tmp_path: Path) -> None:
    """It may still evaluate, and srun would end it some time after the end of another one."""
    with Machines(tmp_path, "while [ ! -f evaluated ]; do sleep 0.1; done; touch out", "touch trained") as machines:
        wait_for(lambda: machines.there("trained"))
        time.sleep(1)
        assert machines.running[1].poll() is None
        (tmp_path / "evaluated").touch()
        assert [process.wait(60) for process in machines.running] == [0, 0]
    assert machines.records.read(machines.job)["status"] == "done"


def test_others_have_not_failed_when_the_time_is_over(tmp_path: Path) -> None:
    """Their processes end with those of the first machine, which has to save and to queue the job again."""
    saved = "while [ ! -f saved ]; do sleep 0.1; done; touch ended; exit 130"
    with Machines(tmp_path, "exec sleep 60", f"touch up; {saved}") as machines:
        wait_for(lambda: machines.there("up"))
        machines.running[1].send_signal(signal.SIGUSR2)
        (tmp_path / "saved").touch()
        wait_for(lambda: machines.there("ended"))
        time.sleep(1)
        assert machines.running[1].poll() is None
        assert not machines.records.read(machines.job)


def test_a_record_of_an_earlier_start_is_gone(tmp_path: Path) -> None:
    """Slurm itself queues a job again one of whose machines broke down; the others may have recorded a failure."""
    machines = Machines(tmp_path, "touch up; exec sleep 60", "exec sleep 60", SLURM_RESTART_COUNT="1")
    machines.records.write(machines.job, "failed", 1.0, "a machine is gone")
    with machines:
        wait_for(lambda: machines.there("up"))
        assert not machines.records.read(machines.job)
