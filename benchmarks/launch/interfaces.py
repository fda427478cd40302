"""What a launcher is to the scheduler and the display."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.jobs import Job


class Running(Protocol):
    """A job that a launcher has taken."""

    job: Job
    log: Path
    reason: str
    """Why it failed, once it has."""

    def state(self) -> str:
        """queued | running | done | failed"""


class Launcher(Protocol):
    @property
    def queues(self) -> bool:
        """Whether it also takes jobs that wait for others which it has taken, and sees to the order itself."""

    def start(self, jobs: Sequence[Job]) -> Sequence[Running]:
        """Take as many of ``jobs`` as there is room for."""

    def stop(self) -> None:
        """The user wants to leave."""
