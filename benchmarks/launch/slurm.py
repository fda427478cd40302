"""Hand jobs to Slurm through submitit: the cluster keeps the order, the watcher may leave and come back.

A job that is about to reach its time limit, or is preempted, is asked to save, queued again, and goes on. What has become of it
it writes itself, so nobody needs to watch. Jobs that wait for the same others become one job array.
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
"""Commands of jobs; each may have settings of its own below the common ones of the suite's ``slurm:`` block."""
GPU_OPTIONS = ("gres", "gpus_per_node", "gpus_per_task")
REQUEUES = 20
"""Time limits that a job may reach (``max_num_timeout``)."""
SAVE_S = 90
"""Seconds before the time limit at which a job is asked to save (``signal_delay_s``)."""
ASK_S = 10.0
"""Seconds between two questions to Slurm."""
PATIENCE_S = 30.0
"""How long a file may take to appear on this machine after another wrote it."""


def options_of(settings: Mapping[str, Any], command: str) -> dict[str, Any]:
    """sbatch's options for the jobs of one command: the common ones, without GPUs for what trains nothing, and its own."""
    common = {name: value for name, value in settings.items() if name not in COMMANDS}
    if command in ("data", "convert"):
        common = {name: value for name, value in common.items() if name not in (*GPU_OPTIONS, "nodes")}
    own = settings.get(command) or {}
    if not isinstance(own, dict):
        raise UserError(f"the suite's slurm block: {command} is {own!r}, but it takes options of its own: {{time: 30}}")
    return common | own


@dataclass
class SlurmTask:
    """What runs inside of Slurm: starts the command of ``job`` and records its end. submitit pickles it."""

    job: Job
    records: Records
    log: Path
    save_s: float
    stall_s: float

    def __call__(self) -> None:
        place = submitit.JobEnvironment()
        meeting: tuple[str, ...] = ()
        if place.num_nodes > 1:
            port = 20000 + int(place.raw_job_id) % 20000
            where = f"--rdzv-endpoint={place.hostnames[0]}:{port}"
            meeting = (f"--nnodes={place.num_nodes}", "--rdzv-backend=c10d", where, f"--rdzv-id={place.raw_job_id}")
        cores = len(os.sched_getaffinity(0)) // max(1, self.job.gpus)
        began, told = time.monotonic(), []
        if place.activated() and place.cluster == "slurm":
            signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))  # Slurm's wish, which the job got as well
        log = self.log if place.global_rank == 0 else self.log.with_suffix(f".node{place.node}.log")
        self._process = start(self.job, log, {"OMP_NUM_THREADS": str(max(1, cores))}, meeting)
        watch, reason = StallWatch(self.job, log, self.stall_s), ""
        while (code := self._process.poll()) is None:
            time.sleep(0.2)
            reason = reason or watch.end_if_stalled(self._process)
        if code and told:  # it has saved; Slurm ends this process next, and queues it again if it was preempted
            time.sleep(600)
        reason = reason or failure(self.job, code, log)
        if place.global_rank == 0:
            self.records.write(self.job, "failed" if reason else "done", time.monotonic() - began, reason)
        if reason:
            raise UserError(f"{self.job.name}: {reason}")  # jobs that wait for this one shall not start

    def checkpoint(self) -> DelayedSubmission:
        """submitit calls this when the time is over: save, and say what to run when it is our turn again."""
        interrupt(self._process)
        deadline = time.monotonic() + self.save_s
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        return DelayedSubmission(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_process"}


@dataclass
class Submitted:
    job: Job
    log: Path
    number: str
    launcher: Slurm
    handle: Any = None
    reason: str = ""
    gone: float = 0.0
    """When it was first missed in the queue."""

    def state(self) -> str:
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
        self.reason = f"job {self.number} left the queue without a word: cancelled, out of memory, or its node failed"
        return "failed"


@dataclass
class Slurm:
    """``settings``: the suite's ``slurm:`` block, named as sbatch's options with underscores; times in minutes.

    ``cluster``: "slurm", or one of submitit's stand-ins, "local" and "debug", which know no order among jobs.
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
        return self.cluster == "slurm"

    def start(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Submit ``jobs``, but for those that an earlier watcher submitted and that are still in the queue."""
        taken: list[Submitted] = []
        groups: dict[tuple[str, int, str], list[Job]] = {}
        for job in jobs:
            if (number := self._number(job)) in self.ask():
                taken.append(Submitted(job, self.log(job), number, self))
                continue
            before = [self._taken[name] for name in job.after if name in self._taken]
            before = [other for other in before if other.state() != "done"]
            if all(other.number in self.ask() for other in before):  # else one has just ended, we shall soon know how
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
                why = "; ".join(str(error).strip().splitlines()[:2]) or "it does not say why"
                raise UserError(
                    f"Slurm refused {members[0].name}: {why}; if that is an option, mend the suite's slurm block, then start "
                    "the same command again"
                ) from error
            for job, handle in zip(members, handles, strict=True):
                write_json(self._path(job), {"number": handle.job_id, "key": job.key})
                taken.append(Submitted(job, self.log(job), handle.job_id, self, handle))
            self._asked = -math.inf  # what we know of the queue is older than this
        self._taken |= {submitted.job.name: submitted for submitted in taken}
        return taken

    def stop(self) -> None:
        mine = {other.number for other in self._taken.values()} & self.ask().keys()
        if mine:
            numbers = " ".join(sorted({number.partition("_")[0] for number in mine}))
            print(f"\nthe jobs go on; the same command again watches them, and this ends them: scancel {numbers}")

    def ask(self) -> dict[str, str]:
        """Number -> state of all jobs of ours that Slurm has queued or runs; asked now and then only."""
        if self.queues and time.monotonic() - self._asked > self.ask_s:
            command = ["squeue", "--noheader", "--array", "--me", "--format=%i %T"]
            try:
                said = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError as error:
                raise UserError("there is no squeue here; start the suite where Slurm's jobs are submitted") from error
            if said.returncode == 0:  # otherwise Slurm is away for a while, and what we knew may still be true
                self._queue = dict(line.split() for line in said.stdout.splitlines() if line.strip())
            self._asked = time.monotonic()
        return self._queue

    def _executor(self, command: str, gpus: int, before: str) -> submitit.AutoExecutor:
        options = options_of(self.settings, command)
        requeues, limit = options.pop("max_num_timeout", REQUEUES), options.get("time")
        if not isinstance(limit, int):
            raise UserError(f"the suite's slurm block gives no time for {command}: add it in minutes, e.g. time: 1440")
        if gpus and not options.keys() & set(GPU_OPTIONS):
            options["gpus_per_node"] = gpus
        more = {"kill-on-invalid-dep": "yes", "requeue": True, **options.pop("additional_parameters", {})}
        options = {"job_name": f"pixbench-{command}", "ntasks_per_node": 1, "signal_delay_s": SAVE_S, **options}
        options["additional_parameters"] = more
        if before:
            options["dependency"] = f"afterok:{before}"
        try:
            executor = submitit.AutoExecutor(self.out / "slurm", self.cluster, slurm_max_num_timeout=requeues)
            executor.update_parameters(**{f"slurm_{name}": value for name, value in options.items()})
        except (NameError, ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"the suite's slurm block, {command}: {' '.join(str(error).split())}") from error
        return executor

    def log(self, job: Job) -> Path:
        return self.out / "logs" / f"{job.name.replace('/', '.')}.log"

    def _path(self, job: Job) -> Path:
        return self.out / "slurm" / f"{job.name.replace('/', '.')}.json"

    def _number(self, job: Job) -> str:
        """Under which this very job was submitted last; "" if it was not."""
        try:
            note = json.loads(self._path(job).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return str(note["number"]) if note["key"] == job.key else ""
