"""Run jobs as subprocesses of this machine, several at a time, each on devices of its own."""

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
"""How long a job may take to save when it is asked to stop."""


@dataclass
class Process:
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
    """At most ``workers`` jobs at a time; jobs that need GPUs share out ``devices`` (names for CUDA_VISIBLE_DEVICES).

    Without ``devices`` each job sees what this process sees. A job that has written nothing for ``stall_s`` is ended.
    """

    queues = False

    def __init__(
        self, records: Records, logs: Path, workers: int = 1, devices: Sequence[str] = (), stall_s: float = 0.0
    ) -> None:
        self.records, self.logs, self.workers, self.stall_s = records, logs, workers, stall_s
        self.packs, self.free = bool(devices), list(devices)
        self.running: list[Process] = []

    def start(self, jobs: Sequence[Job]) -> list[Process]:
        started = []
        for job in jobs:
            if len(self.running) < self.workers and (not self.packs or job.gpus <= len(self.free)):
                started.append(self._start(job))
        return started

    def _start(self, job: Job) -> Process:
        log = self.logs / f"{job.name.replace('/', '.')}.log"
        # one thread pool per job: several jobs that each take all cores slow each other down
        threads = max(1, len(os.sched_getaffinity(0)) // (self.workers * max(1, job.gpus)))
        env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        devices: list[str] = []
        if self.packs:
            devices, self.free = self.free[: job.gpus], self.free[job.gpus :]
            env["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        process = Process(job, log, start(job, log, env), devices, self)
        self.running.append(process)
        return process

    def release(self, process: Process) -> None:
        self.running.remove(process)
        self.free += process.devices

    def stop(self) -> None:
        """Ask every running job to save and stop; end those that have not after a while, or at another Ctrl-C."""
        alive = [run.process for run in self.running]
        if alive:
            print(f"\nstopping {len(alive)} running jobs; they save first (Ctrl-C again: at once)", file=sys.stderr)
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
            elif run.process.returncode == 0 and run.job.output.exists():  # it was just about to end
                self.records.write(run.job, "done", time.monotonic() - run.began)
