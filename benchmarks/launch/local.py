"""Run jobs as subprocesses of this machine, several at a time, in an order that respects what each waits for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.jobs import Job, Records

POLL_S = 0.5
HEARTBEAT_S = 20.0
GRACE_S = 120.0


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    log: Path


def run_jobs(jobs: Sequence[Job], records: Records, logs: Path, workers: int = 1) -> dict[str, str]:
    """Run ``jobs`` with at most ``workers`` at once; return name -> done | failed | blocked.

    A failed job blocks only those that wait for it. Finished jobs are not run again. On Ctrl-C the running ones get the
    signal too (they save and stop), and KeyboardInterrupt goes on to the caller once they have ended.
    """
    states: dict[str, str] = {}
    for job in jobs:  # in order: a job is done only if all that it was made from is
        if all(name in states for name in job.after) and records.done(job):
            states[job.name] = "done"
    waiting = [job for job in jobs if job.name not in states]
    if states:
        print(f"{len(states)} of {len(jobs)} jobs were finished before", flush=True)
    running: list[_Running] = []
    progress = _Progress(len(jobs))
    try:
        while waiting or running:
            for job in [job for job in waiting if any(states.get(name) in ("failed", "blocked") for name in job.after)]:
                waiting.remove(job)
                states[job.name] = "blocked"
                progress.event(len(states), job.name, "not run: what it waits for failed")
            for job in [job for job in waiting if all(states.get(name) == "done" for name in job.after)]:
                if len(running) >= workers:
                    break
                waiting.remove(job)
                running.append(_start(job, logs, workers))
                progress.event(len(states), job.name, "started")
            time.sleep(POLL_S)
            progress.heartbeat(running)
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                seconds = time.monotonic() - run.started
                good = run.process.returncode == 0 and run.job.output.exists()
                states[run.job.name] = "done" if good else "failed"
                records.write(run.job, states[run.job.name], seconds)
                why = f"done in {seconds:.0f} s" if good else f"FAILED: {_reason(run)} (log: {run.log})"
                progress.event(len(states), run.job.name, why)
    except KeyboardInterrupt:
        _stop(running)
        raise
    return states


def _start(job: Job, logs: Path, workers: int) -> _Running:
    log = logs / f"{job.name.replace('/', '.')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    # one thread pool per job: several jobs that each take all cores slow each other down
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads), "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(job.command)}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    return _Running(job, process, time.monotonic(), log)


def _stop(running: Sequence[_Running]) -> None:
    """Ask every running job to save and stop; end those that have not after a while."""
    if running:
        print(f"\nstopping {len(running)} running jobs; they save first", file=sys.stderr, flush=True)
    for run in running:
        _signal(run, signal.SIGINT)
    deadline = time.monotonic() + GRACE_S
    for run in running:
        try:
            run.process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            _signal(run, signal.SIGKILL)
            run.process.wait()


def _signal(run: _Running, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process.pid, number)


def _last_line(log: Path) -> str:
    """The last non-empty line of a log; a progress bar's redraws count as lines."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        lines = stream.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _reason(run: _Running) -> str:
    code = run.process.returncode
    if code == 0:
        return f"it ended well but left no {run.job.output}"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    return _last_line(run.log)[:300] or f"exit code {code}"


class _Progress:
    """Event lines with the time since the start, and now and then what each running job last said."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.started = self.last = time.monotonic()

    def event(self, ended: int, name: str, text: str) -> None:
        self.last = time.monotonic()
        print(f"[{self.last - self.started:5.0f} s, {ended:>2}/{self.total}] {name}: {text}", flush=True)

    def heartbeat(self, running: Sequence[_Running]) -> None:
        now = time.monotonic()
        if now - self.last < HEARTBEAT_S:
            return
        self.last = now
        for run in running:
            print(f"[{now - self.started:5.0f} s]   {run.job.name}: {_last_line(run.log)[:140]}", flush=True)
