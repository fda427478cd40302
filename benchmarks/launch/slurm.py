"""Run jobs on Slurm through submitit.

Slurm keeps the order of the jobs. The suite command only watches them; it may be stopped and started again.
A job that is about to reach its time limit, or is preempted, is asked to save, is queued again, and continues. Each job
records its own end (`slurm_task`), so no process has to watch it. Jobs that have the same options (`slurm_options`) and
wait for the same other jobs become one job array.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError

from benchmarks.jobs import Job, Records
from benchmarks.launch.cores import fewer_workers
from benchmarks.launch.slurm_options import REQUEUES, cores_of, job_options, options_of
from benchmarks.launch.slurm_task import SlurmTask
from pixbench.errors import UserError
from pixbench.files import write_json

ASK_S = 10.0
"""Minimum number of seconds between two queries to Slurm."""
FIRST_ATTEMPTS = 6
"""Number of queries of which one must be answered before anything is submitted."""
PATIENCE_S = 30.0
"""Seconds that a file may take to appear on this machine after another machine wrote it."""


@dataclass
class Submitted:
    """A job that was submitted to Slurm."""

    job: Job
    log: Path
    number: str
    launcher: Slurm
    handle: Any = None
    reason: str = ""
    gone: float = 0.0
    """When the job was first missing from the queue; 0 if it is not missing."""

    def state(self) -> str:
        """Return "queued", "running", "done" or "failed"."""
        record = self.launcher.records.read(self.job)
        if record:
            self.reason = record["reason"]
            return str(record["status"])
        known = self.launcher.ask().get(self.number, "")
        if known or (self.handle is not None and not self.launcher.queues and not self.handle.done()):
            self.gone = 0.0
            return "queued" if known == "PENDING" else "running"
        self.gone = self.gone or time.monotonic()
        if time.monotonic() - self.gone < PATIENCE_S:
            return "running"
        self.reason = f"job {self.number} left the queue without a result: cancelled, out of memory, or its node failed"
        return "failed"


def _squeue() -> subprocess.CompletedProcess[str]:
    """Ask Slurm for the user's jobs."""
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i %T"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(
            "there is no squeue command here; start the suite on a machine where Slurm jobs can be submitted"
        ) from error


@dataclass
class Slurm:
    """Launcher that submits jobs to Slurm.

    ``settings`` is the suite's ``slurm:`` block: options of sbatch, with underscores in their names and times in
    minutes. ``array_limit`` is the number of jobs of an array that may run at the same time; it wins over the block's
    ``array_parallelism``. ``cluster`` is "slurm", or one of submitit's replacements, "local" and "debug", which do not
    keep an order among jobs.
    """

    records: Records
    out: Path
    settings: dict[str, Any]
    stall_s: float = 0.0
    array_limit: int | None = None
    cluster: str = "slurm"
    ask_s: float = ASK_S
    _queue: dict[str, str] = field(default_factory=dict)
    _asked: float = -math.inf
    _answered: bool = False
    """Whether Slurm has said what is in the queue."""
    _taken: dict[str, Submitted] = field(default_factory=dict)

    @property
    def queues(self) -> bool:
        """Whether it also accepts jobs that wait for other accepted jobs; only Slurm keeps their order."""
        return self.cluster == "slurm"

    def start(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Submit ``jobs``, except those that an earlier suite command submitted and that are still in the queue."""
        accepted: list[Submitted] = []
        arrays: list[tuple[dict[str, Any], list[Job]]] = []
        for job in jobs:
            if (number := self._number(job)) in self.ask():
                accepted.append(Submitted(job, self.log(job), number, self))
                continue
            before = [self._taken[name] for name in job.after if name in self._taken]
            before = [other for other in before if other.state() != "done"]
            # otherwise one has just ended; its result follows soon
            if all(other.number in self.ask() for other in before):
                options = self._options(job, sorted(other.number for other in before))
                same = next((members for others, members in arrays if others == options), None)
                if same is None:
                    arrays.append((options, same := []))
                same.append(job)
        for options, members in arrays:
            accepted += self._submit(members, options)
        self._taken |= {submitted.job.name: submitted for submitted in accepted}
        return accepted

    def stop(self) -> None:
        """Leave the jobs in the queue and print the command that cancels them."""
        mine = {other.number for other in self._taken.values()} & self.ask().keys()
        if mine:
            numbers = " ".join(sorted({number.partition("_")[0] for number in mine}))
            print(f"\nthe jobs continue; start the same command again to watch them, or cancel them: scancel {numbers}")

    def ask(self) -> dict[str, str]:
        """Return job number -> state of the user's queued and running jobs; asks Slurm every ``ask_s`` s at most."""
        if self.queues and time.monotonic() - self._asked > self.ask_s:
            answer = _squeue()
            for _ in range(FIRST_ATTEMPTS - 1):
                if answer.returncode == 0 or self._answered:
                    break
                time.sleep(self.ask_s)
                answer = _squeue()
            if answer.returncode == 0:  # otherwise Slurm is briefly not available; keep the last known state
                self._queue = dict(line.split() for line in answer.stdout.splitlines() if line.strip())
                self._answered = True
            elif not self._answered:  # without a known state, jobs that run would be submitted once more
                raise UserError(
                    f"squeue fails ({' '.join(answer.stderr.split())[:200] or 'no reason given'}), so it is not known which jobs "
                    "are in the queue; nothing was submitted; start the same command again later"
                )
            self._asked = time.monotonic()
        return self._queue

    def _options(self, job: Job, before: Sequence[str]) -> dict[str, Any]:
        options = job_options(self.settings, job)
        if self.array_limit is not None:
            options["array_parallelism"] = self.array_limit
        if before:
            options["dependency"] = f"afterok:{':'.join(before)}"
        return options

    def _submit(self, jobs: Sequence[Job], options: dict[str, Any]) -> list[Submitted]:
        """Submit ``jobs``, which have the same ``options``: as a job array if there are several."""
        save_s = max(1.0, options["signal_delay_s"] - 15)
        tasks, sentences = [], set()
        for job in jobs:
            words, sentence = fewer_workers(job, cores_of(options, job))
            sentences.add(sentence)
            self.records.forget(job)
            tasks.append(SlurmTask(job, self.records, self.log(job), save_s, self.stall_s, words))
        executor = self._executor(jobs[0].command_name, options)
        try:
            with executor.batch():
                handles = [executor.submit(task) for task in tasks]
        except FailedJobError as error:
            raise self._refused(jobs[0], options, error) from error
        self._asked = -math.inf  # the known state of the queue is older than these jobs
        for sentence in sorted(sentences - {""}):
            print(sentence, flush=True)
        accepted = []
        for job, handle in zip(jobs, handles, strict=True):
            write_json(self._path(job), {"number": handle.job_id, "key": job.key})
            accepted.append(Submitted(job, self.log(job), handle.job_id, self, handle))
        return accepted

    def _refused(self, job: Job, options: dict[str, Any], error: FailedJobError) -> UserError:
        why = "; ".join(str(error).strip().splitlines()[:2]) or "no reason given"
        what = "if an option is wrong, correct the suite's slurm block, then start the same command again"
        if "cpus_per_task" in options and "cpus_per_task" not in options_of(self.settings, job.command_name):
            what = (
                f"it asked for {options['cpus_per_task']} CPUs, one for each process and data worker; cpus_per_task: N "
                f"in the suite's slurm block asks for N; {what}"
            )
        return UserError(f"Slurm refused {job.name}: {why}; {what}")

    def _executor(self, command: str, options: dict[str, Any]) -> submitit.AutoExecutor:
        requeues = options.pop("max_num_timeout", REQUEUES)
        # submitit starts Python in the current folder, whose packages may be called like ours (Python 3.11 and later)
        os.environ["PYTHONSAFEPATH"] = "1"
        try:
            executor = submitit.AutoExecutor(self.out / "slurm", self.cluster, slurm_max_num_timeout=requeues)
            executor.update_parameters(**{f"slurm_{name}": value for name, value in options.items()})
        except (NameError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(
                f"the suite's slurm block cannot be used for {command}: {' '.join(str(error).split())}"
            ) from error
        return executor

    def log(self, job: Job) -> Path:
        """Return the path of the log of ``job``."""
        return self.out / "logs" / f"{job.name.replace('/', '.')}.log"

    def _path(self, job: Job) -> Path:
        return self.out / "slurm" / f"{job.name.replace('/', '.')}.json"

    def _number(self, job: Job) -> str:
        """Return the number under which exactly this job was last submitted; "" if it was not submitted."""
        try:
            note = json.loads(self._path(job).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return str(note["number"]) if note["key"] == job.key else ""
