"""The task that runs inside a Slurm job, once on each of its machines.

The first machine has rank 0: it saves, puts the job into the queue again, and records its end. The others must not end
before it without a reason, because srun ends all tasks some time after the first one (`slurm_options.WAIT_S`).
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission

from benchmarks.jobs import Job, Records
from benchmarks.launch.process import StallWatch, failure, interrupt, start
from pixbench.errors import UserError

POLL_S = 2.0
"""Seconds between two looks at the record that another machine writes."""


@dataclass
class SlurmTask:
    """Starts the command of ``job`` and records its end. submitit pickles it."""

    job: Job
    records: Records
    log: Path
    save_s: float
    stall_s: float
    words: tuple[str, ...] = ()
    """Added to the command; they are not part of the job's identity."""

    def __call__(self) -> None:
        """Run the job until it ends and record its result.

        Raises:
            UserError: the job failed.
        """
        place = submitit.JobEnvironment()
        first = place.global_rank == 0
        cores = len(os.sched_getaffinity(0)) // max(1, self.job.gpus)
        began, signals = time.monotonic(), []
        if place.activated() and place.cluster == "slurm":
            # Slurm has also sent this signal to the job
            signal.signal(signal.SIGTERM, lambda *_: signals.append("SIGTERM"))
            if not first:  # at the time limit the first machine does all that is needed, in `checkpoint`
                signal.signal(signal.Signals[f"SIG{place.USR_SIG}"], lambda *_: signals.append(place.USR_SIG))
        if first and os.environ.get("SLURM_RESTART_COUNT"):
            self.records.forget(self.job)  # a machine may have recorded a failure before the job was queued again
        log = self.log if first else self.log.with_suffix(f".node{place.node}.log")
        command = replace(self.job, command=(*self.job.command, *self.words))
        self._process = start(command, log, {"OMP_NUM_THREADS": str(max(1, cores))}, _rendezvous(place))
        watch, reason = StallWatch(self.job, log, self.stall_s), ""
        while (code := self._process.poll()) is None:
            time.sleep(0.2)
            reason = reason or watch.end_if_stalled(self._process)
        if code and signals:
            # the job has saved; the first machine or Slurm queues it again, and Slurm ends this task
            time.sleep(600)
        if first or code:  # only the first machine writes the output
            reason = reason or failure(self.job, code, log)
        if reason and place.num_nodes > 1:
            reason = self._with_others(f"node {place.node} ({place.hostname}): {reason}")
        if first or reason:
            self.records.write(self.job, "failed" if reason else "done", time.monotonic() - began, reason)
        if reason:
            raise UserError(f"{self.job.name}: {reason}")  # prevents the start of the jobs that wait for this one
        while not first and not self.records.read(self.job):  # rank 0 may still evaluate
            time.sleep(POLL_S)

    def checkpoint(self) -> DelayedSubmission:
        """Ask the job to save and return the task to queue again; submitit calls this when the time is over."""
        interrupt(self._process)
        deadline = time.monotonic() + self.save_s
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        return DelayedSubmission(self)

    def _with_others(self, reason: str) -> str:
        """Return ``reason`` after those of the machines that failed before: the first one is often the cause."""
        return "; ".join(filter(None, (self.records.read(self.job).get("reason"), reason)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_process"}


def _rendezvous(place: submitit.JobEnvironment) -> tuple[str, ...]:
    """Return the options with which torchrun finds the other machines of the job; none if there is only one."""
    if place.num_nodes == 1:
        return ()
    port = 20000 + int(place.raw_job_id) % 20000
    where = f"--rdzv-endpoint={place.hostnames[0]}:{port}"
    return f"--nnodes={place.num_nodes}", "--rdzv-backend=c10d", where, f"--rdzv-id={place.raw_job_id}"
