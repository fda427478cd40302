"""Run jobs on Slurm through submitit.

Slurm keeps the order of the jobs. The suite command only watches them; it may be stopped and started again.
A job that is about to reach its time limit, or is preempted, is asked to save, is queued again, and continues. Each job
records its own end, so no process has to watch it. Jobs that wait for the same other jobs become one job array.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError
from submitit.helpers import DelayedSubmission

from benchmarks.jobs import Job, Records
from benchmarks.launch.process import StallWatch, failure, interrupt, start
from pixbench.errors import UserError
from pixbench.files import write_json

COMMANDS = ("data", "pretrain", "convert", "transfer")
"""Commands of jobs; each may have its own options in the suite's ``slurm:`` block, besides the common ones."""
GPU_OPTIONS = ("gres", "gpus_per_node", "gpus_per_task")
REQUEUES = 20
"""Number of times that a job may reach its time limit (``max_num_timeout``)."""
SAVE_S = 90
"""Seconds before the time limit at which a job is asked to save (``signal_delay_s``)."""
ASK_S = 10.0
"""Minimum number of seconds between two queries to Slurm."""
PATIENCE_S = 30.0
"""Seconds that a file may take to appear on this machine after another machine wrote it."""


def options_of(settings: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return the sbatch options for the jobs of ``command``: the common ones and its own.

    For commands that do not train (data, convert) the common options are used without GPUs and ``nodes``.
    """
    common = {name: value for name, value in settings.items() if name not in COMMANDS}
    if command in ("data", "convert"):
        common = {name: value for name, value in common.items() if name not in (*GPU_OPTIONS, "nodes")}
    own = settings.get(command) or {}
    if not isinstance(own, dict):
        raise UserError(
            f"the suite's slurm block: {command} is {own!r}, but must be a mapping of options, e.g. {{time: 30}}"
        )
    return common | own


@dataclass
class SlurmTask:
    """The task that runs inside Slurm: starts the command of ``job`` and records its end. submitit pickles it."""

    job: Job
    records: Records
    log: Path
    save_s: float
    stall_s: float

    def __call__(self) -> None:
        """Run the job until it ends and record its result.

        Raises:
            UserError: the job failed.
        """
        place = submitit.JobEnvironment()
        rendezvous: tuple[str, ...] = ()
        if place.num_nodes > 1:
            port = 20000 + int(place.raw_job_id) % 20000
            where = f"--rdzv-endpoint={place.hostnames[0]}:{port}"
            rendezvous = (f"--nnodes={place.num_nodes}", "--rdzv-backend=c10d", where, f"--rdzv-id={place.raw_job_id}")
        cores = len(os.sched_getaffinity(0)) // max(1, self.job.gpus)
        began, signals = time.monotonic(), []
        if place.activated() and place.cluster == "slurm":
            # Slurm has also sent this signal to the job
            signal.signal(signal.SIGTERM, lambda *_: signals.append("SIGTERM"))
        log = self.log if place.global_rank == 0 else self.log.with_suffix(f".node{place.node}.log")
        self._process = start(self.job, log, {"OMP_NUM_THREADS": str(max(1, cores))}, rendezvous)
        watch, reason = StallWatch(self.job, log, self.stall_s), ""
        while (code := self._process.poll()) is None:
            time.sleep(0.2)
            reason = reason or watch.end_if_stalled(self._process)
        if code and signals:  # the job has saved; next Slurm ends this process, and queues it again if it was preempted
            time.sleep(600)
        reason = reason or failure(self.job, code, log)
        if place.global_rank == 0:
            self.records.write(self.job, "failed" if reason else "done", time.monotonic() - began, reason)
        if reason:
            raise UserError(f"{self.job.name}: {reason}")  # prevents the start of the jobs that wait for this one

    def checkpoint(self) -> DelayedSubmission:
        """Ask the job to save and return the task to queue again; submitit calls this when the time is over."""
        interrupt(self._process)
        deadline = time.monotonic() + self.save_s
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        return DelayedSubmission(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_process"}


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


@dataclass
class Slurm:
    """Launcher that submits jobs to Slurm.

    ``settings`` is the suite's ``slurm:`` block: options of sbatch, with underscores in their names and times in
    minutes. ``cluster`` is "slurm", or one of submitit's replacements, "local" and "debug", which do not keep an order
    among jobs.
    """

    records: Records
    out: Path
    settings: dict[str, Any]
    stall_s: float = 0.0
    cluster: str = "slurm"
    ask_s: float = ASK_S
    _queue: dict[str, str] = field(default_factory=dict)
    _asked: float = -math.inf
    _taken: dict[str, Submitted] = field(default_factory=dict)

    @property
    def queues(self) -> bool:
        """Whether it also accepts jobs that wait for other accepted jobs; only Slurm keeps their order."""
        return self.cluster == "slurm"

    def start(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Submit ``jobs``, except those that an earlier suite command submitted and that are still in the queue."""
        accepted: list[Submitted] = []
        groups: dict[tuple[str, int, str], list[Job]] = {}
        for job in jobs:
            if (number := self._number(job)) in self.ask():
                accepted.append(Submitted(job, self.log(job), number, self))
                continue
            before = [self._taken[name] for name in job.after if name in self._taken]
            before = [other for other in before if other.state() != "done"]
            # otherwise one has just ended; its result follows soon
            if all(other.number in self.ask() for other in before):
                place = job.command_name, job.gpus, ":".join(sorted(other.number for other in before))
                groups.setdefault(place, []).append(job)
        for (command, gpus, numbers), members in groups.items():
            executor = self._executor(command, gpus, numbers)
            save_s = max(1.0, options_of(self.settings, command).get("signal_delay_s", SAVE_S) - 15)
            for job in members:
                self.records.forget(job)
            try:
                with executor.batch():
                    handles = [
                        executor.submit(SlurmTask(job, self.records, self.log(job), save_s, self.stall_s))
                        for job in members
                    ]
            except FailedJobError as error:
                why = "; ".join(str(error).strip().splitlines()[:2]) or "no reason given"
                raise UserError(
                    f"Slurm refused {members[0].name}: {why}; if an option is wrong, correct the suite's slurm "
                    "block, then start the same command again"
                ) from error
            for job, handle in zip(members, handles, strict=True):
                write_json(self._path(job), {"number": handle.job_id, "key": job.key})
                accepted.append(Submitted(job, self.log(job), handle.job_id, self, handle))
            self._asked = -math.inf  # the known state of the queue is older than these jobs
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
            command = ["squeue", "--noheader", "--array", "--me", "--format=%i %T"]
            try:
                answer = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError as error:
                raise UserError(
                    "there is no squeue command here; start the suite on a machine where Slurm jobs can be submitted"
                ) from error
            if answer.returncode == 0:  # otherwise Slurm is briefly not available; keep the last known state
                self._queue = dict(line.split() for line in answer.stdout.splitlines() if line.strip())
            self._asked = time.monotonic()
        return self._queue

    def _executor(self, command: str, gpus: int, before: str) -> submitit.AutoExecutor:
        options = options_of(self.settings, command)
        requeues, limit = options.pop("max_num_timeout", REQUEUES), options.get("time")
        if not isinstance(limit, int):
            raise UserError(
                f"the suite's slurm block has no time for {command}; add it as a number of minutes, e.g. time: 1440"
            )
        if gpus and not options.keys() & set(GPU_OPTIONS):
            options["gpus_per_node"] = gpus
        more = {"kill-on-invalid-dep": "yes", "requeue": True, **options.pop("additional_parameters", {})}
        options = {"job_name": f"pixbench-{command}", "ntasks_per_node": 1, "signal_delay_s": SAVE_S, **options}
        options["additional_parameters"] = more
        if before:
            options["dependency"] = f"afterok:{before}"
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
