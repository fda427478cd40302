"""Interfaces of a launcher, as used by the scheduler and the display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.jobs import Job


class AcceptedJob(Protocol):
    """A job that a launcher has accepted."""

    job: Job
    log: Path
    reason: str
    """Why the job failed; empty if it has not failed."""

    def state(self) -> str:
        """Return "queued", "running", "done" or "failed"."""


class Launcher(Protocol):
    """Starts the jobs of a suite."""

    @property
    def queues(self) -> bool:
        """Whether it also accepts jobs that wait for other accepted jobs, and keeps their order itself."""

    def start(self, jobs: Sequence[Job]) -> Sequence[AcceptedJob]:
        """Accept as many of ``jobs`` as there is room for, and return them."""

    def stop(self) -> None:
        """Handle the user's request to stop the suite."""
