"""Start the command of a job, end it with all its children, and say in one sentence why it failed."""

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
from pixbench.progress import PROGRESS

PR_SET_PDEATHSIG = 1
TAIL = 8192
"""Bytes at the end of a log in which the reason of a failure is looked for."""


def start(job: Job, log: Path, env: Mapping[str, str], meeting: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """Start ``job`` in a session of its own, with what it prints appended to ``log``.

    A terminal's Ctrl-C does not reach it: whoever started it passes the wish on. If that process dies, the job gets a
    SIGTERM, on which it saves and stops. SIGUSR2 is Slurm's announcement to whoever started it and means nothing to the job.
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

    words = job.argv(meeting)
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
    """Ask the whole job to save and stop."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the job and all its descendants now: torchrun puts each of its workers into a session of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()


class StallWatch:
    """Ends a job that has written nothing for ``limit_s`` seconds: neither its log nor the files that runs keep."""

    def __init__(self, job: Job, log: Path, limit_s: float) -> None:
        self.files = [log, *(job.output.parent / name for name in (PROGRESS, "log.txt", "log.jsonl"))]
        self.limit_s, self.newest, self.seen = limit_s, 0.0, time.monotonic()

    def end_if_stalled(self, process: subprocess.Popen[bytes]) -> str:
        """Why the job was ended; "" if it was not. A limit of 0 is none."""
        if not self.limit_s:
            return ""
        newest = max((path.stat().st_mtime for path in self.files if path.exists()), default=0.0)
        if newest != self.newest:  # times of files are compared with each other only: a laptop may have slept
            self.newest, self.seen = newest, time.monotonic()
        if time.monotonic() - self.seen < self.limit_s:
            return ""
        kill(process)
        return f"nothing written for {self.limit_s / 60:g} minutes (--stall-minutes), so it was ended"


def failure(job: Job, code: int, log: Path) -> str:
    """Why ``job`` failed, from its exit code and what it said; "" if it has not."""
    if code == 0:
        return "" if job.output.exists() else f"it ended well but left no {job.output}"
    said = f"\n{_tail(log)}".rpartition("\n$ ")[2].partition("\n")[2]  # since the last start
    if code == -signal.SIGKILL or "Signal 9 (SIGKILL)" in said:
        return "killed by SIGKILL (out of memory?)"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    sentences = re.findall(r"^(?:pixbench|pretrain): error: (.*)", said, re.M)
    own = [text for text in sentences if "another process stopped" not in text]
    # what looks like a defect is often only what another process's end has done to this one
    own = [text for text in own if "(a defect in PixBench?" not in text] or own
    return (own[-1] if own else _last(said)[:300]) or f"exit code {code}"


def last_line(log: Path) -> str:
    """The last non-empty line of a log; a progress bar's redraws count as lines."""
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
