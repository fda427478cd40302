"""Start the command of a job, end it with all its child processes, and find the reason of a failure."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.jobs import Job
from pixbench.errors import OtherProcessStopped
from pixbench.file_versions import RUN_LOG, STEP_LOG
from pixbench.progress import PROGRESS

PR_SET_PDEATHSIG = 1
TAIL = 8192
"""Number of bytes at the end of a log that are searched for the reason of a failure."""


def start(job: Job, log: Path, env: Mapping[str, str], rendezvous: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start ``job`` in its own session and append its output to ``log``.

    Ctrl-C in a terminal does not reach the job; the process that started it must pass the interrupt on. If that process
    dies, the job gets a SIGTERM, saves and stops. The job ignores SIGUSR2, with which Slurm warns the process that
    started it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):  # not Linux
        prctl = None

    def prepare() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    words = job.argv(rendezvous)
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(words)}".replace("\n", " ").encode() + b"\n")
        stream.flush()
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
            start_new_session=True,
            preexec_fn=prepare,
        )


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask all processes of the job to save and stop.

    Under torchrun, its workers are asked and not torchrun, which would kill them 30 seconds later.
    """
    workers = _workers_of_torchrun(process.pid)
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.send_signal(signal.SIGINT)
    if not workers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)


def _workers_of_torchrun(pid: int) -> list[psutil.Process]:
    """Return the processes that torchrun, the process ``pid``, has started; none if it is not torchrun."""
    workers = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.Error):
                if "LOCAL_RANK" in child.environ():
                    workers.append(child)
    return workers


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the job and all its descendants, including the workers of torchrun, which have their own sessions."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()


class StallWatch:
    """Kills a job that for ``limit_s`` seconds has written nothing to its log or to the files of its run folder."""

    def __init__(self, job: Job, log: Path, limit_s: float) -> None:
        self.files = [log, *(job.output.parent / name for name in (PROGRESS, RUN_LOG, STEP_LOG))]
        self.limit_s, self.newest, self.seen = limit_s, 0.0, time.monotonic()

    def end_if_stalled(self, process: subprocess.Popen[bytes]) -> str:
        """If the job has stalled, kill it and return the reason; otherwise return "". A limit of 0 means no limit."""
        if not self.limit_s:
            return ""
        newest = max((path.stat().st_mtime for path in self.files if path.exists()), default=0.0)
        if newest != self.newest:  # do not compare file times with the clock: a laptop may have slept
            self.newest, self.seen = newest, time.monotonic()
        if time.monotonic() - self.seen < self.limit_s:
            return ""
        kill(process)
        return f"nothing written for {self.limit_s / 60:g} minutes (--stall-minutes), so the job was ended"


def failure(job: Job, code: int, log: Path) -> str:
    """Return why ``job`` failed, from its exit code and its log; "" if it has not failed."""
    if code == 0:
        return "" if job.output.exists() else f"the command ended without an error but did not write {job.output}"
    output = f"\n{_tail(log)}".rpartition("\n$ ")[2].partition("\n")[2]  # only the output since the last start
    if code == -signal.SIGKILL or "Signal 9 (SIGKILL)" in output:
        return "killed by SIGKILL (out of memory?)"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    sentences = re.findall(r"^(?:pixbench|(?:pixbench )?pretrain): error: (.*)", output, re.M)
    own = [text for text in sentences if OtherProcessStopped.SIGN not in text]
    # an apparent defect is often only a consequence of the end of another process
    own = [text for text in own if "(a defect in PixBench?" not in text] or own
    return (own[-1] if own else _last(output)[:300]) or f"exit code {code}"


def last_line(log: Path) -> str:
    """Return the last non-empty line of a log; each redraw of a progress bar counts as a line."""
    return _last(_tail(log))


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL))
            return stream.read().decode(errors="replace").replace("\r", "\n")
    except OSError:
        return ""
