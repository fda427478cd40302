"""Run jobs as subprocesses on this machine, several at a time, each on its own devices."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.jobs import Job, Records
from benchmarks.launch.process import StallWatch, failure, interrupt, kill, start

GRACE_S = 120.0
"""Seconds that a job may take to save after it is asked to stop."""


@dataclass
class Process:
    """A job that runs as a subprocess."""

    job: Job
    log: Path
    process: subprocess.Popen[bytes]
    devices: list[str]
    launcher: Local
    began: float = field(default_factory=time.monotonic)
    reason: str = ""
    ended: str = ""

    def __post_init__(self) -> None:
        self.watch = StallWatch(self.job, self.log, self.launcher.stall_s)

    def state(self) -> str:
        """Return "running", "done" or "failed"; record the end of the job when it is first seen."""
        if self.ended:
            return self.ended
        if self.process.poll() is None:
            self.reason = self.watch.end_if_stalled(self.process)
            if not self.reason:
                return "running"
        self.reason = self.reason or failure(self.job, self.process.wait(), self.log)
        self.ended = "failed" if self.reason else "done"
        self.launcher.release(self)
        self.launcher.records.write(self.job, self.ended, time.monotonic() - self.began, self.reason)
        return self.ended


class Local:
    """Launcher that runs at most ``jobs_at_a_time`` jobs at the same time on this machine.

    Each job gets the GPUs that it needs from ``devices`` (names for CUDA_VISIBLE_DEVICES). Without ``devices`` each job
    sees the same GPUs as this process. A job that has written nothing for ``stall_s`` seconds is ended.
    """

    queues = False

    def __init__(
        self, records: Records, logs: Path, jobs_at_a_time: int = 1, devices: Sequence[str] = (), stall_s: float = 0.0
    ) -> None:
        self.records, self.logs, self.jobs_at_a_time, self.stall_s = records, logs, jobs_at_a_time, stall_s
        self.assigns_gpus, self.free = bool(devices), list(devices)
        self.running: list[Process] = []

    def start(self, jobs: Sequence[Job]) -> list[Process]:
        """Start as many of ``jobs`` as there is room for (jobs and devices), and return them."""
        started = []
        for job in jobs:
            if len(self.running) < self.jobs_at_a_time and (not self.assigns_gpus or job.gpus <= len(self.free)):
                started.append(self._start(job))
        return started

    def _start(self, job: Job) -> Process:
        log = self.logs / f"{job.name.replace('/', '.')}.log"
        # divide the cores among the jobs: if each job uses all cores, the jobs slow each other down
        threads = max(1, len(os.sched_getaffinity(0)) // (self.jobs_at_a_time * max(1, job.gpus)))
        env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        devices: list[str] = []
        if self.assigns_gpus:
            devices, self.free = self.free[: job.gpus], self.free[job.gpus :]
            env["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        process = Process(job, log, start(job, log, env), devices, self)
        self.running.append(process)
        return process

    def release(self, process: Process) -> None:
        """Make the devices of a finished job available again."""
        self.running.remove(process)
        self.free += process.devices

    def stop(self) -> None:
        """Ask every running job to save and stop; kill those that still run after `GRACE_S` or at a second Ctrl-C."""
        alive = [run.process for run in self.running]
        if alive:
            print(
                f"\nstopping {len(alive)} running jobs; they save first (press Ctrl-C again to stop at once)",
                file=sys.stderr,
            )
        deadline = time.monotonic() + GRACE_S
        try:
            for process in alive:
                interrupt(process)
            while any(process.poll() is None for process in alive) and time.monotonic() < deadline:
                time.sleep(0.1)
        except KeyboardInterrupt:
            print("stopping at once", file=sys.stderr)
        for run in self.running:
            if run.process.poll() is None:
                kill(run.process)
            elif run.process.returncode == 0 and run.job.output.exists():  # it finished before the interrupt reached it
                self.records.write(run.job, "done", time.monotonic() - run.began)
