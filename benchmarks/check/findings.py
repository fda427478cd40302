"""Problems that checks find, each with the jobs that it would stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tabulate import tabulate

from pixbench.errors import explain

SHOWN = 2
"""Number of jobs that are named for each problem."""


class Findings:
    """Distinct problems in the order in which they were found."""

    def __init__(self) -> None:
        self.problems: dict[str, list[str]] = {}

    def add(self, job: str, problem: str) -> None:
        """Add a problem of the job called ``job``."""
        jobs = self.problems.setdefault(problem, [])
        if job not in jobs:
            jobs.append(job)

    @contextmanager
    def of(self, job: str) -> Iterator[None]:
        """Add the error with which the block ends, and go on after it."""
        try:
            yield
        except Exception as error:
            self.add(job, explain(error))

    def table(self) -> str:
        """Return one line for each problem."""
        rows = [(_listed(jobs), " ".join(problem.split())) for problem, jobs in self.problems.items()]
        return tabulate(rows, ("stops", "problem"), tablefmt="plain", disable_numparse=True)


def _listed(jobs: list[str]) -> str:
    more = f" and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
    return ", ".join(jobs[:SHOWN]) + more
