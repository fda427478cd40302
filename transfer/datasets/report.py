"""What a check found: problems, which stop a run, and notes, which say how unusual data is read.

Things of the same kind are counted, and only the first one is described, so that a million equal faults are one line.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pixbench.errors import printable

LONGEST = 500
"""Characters of a sentence; a user's file may hold a very long value."""


@dataclass
class Finding:
    """The first of several things of one kind, and their number."""

    where: str
    what: str
    remedy: str
    taken: str = ""
    """How it is read if it is rare; empty if it is a problem in any case."""
    rare: int = 0
    """It is rare if it is in at most one of so many annotations."""
    count: int = 0

    def line(self) -> str:
        """Return the finding as one sentence."""
        more = f" (and {self.count - 1:,} more like it)" if self.count > 1 else ""
        return f"{self.where}: {self.what}{more}; {self.remedy}"


@dataclass
class Report:
    """Problems and notes of one data set."""

    faults: dict[str, Finding] = field(default_factory=dict)
    readings: dict[str, Finding] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    """Numbers of things by name, for decisions about the whole data set."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Other results of the check, by name: plain data. "absent": names of classes without an object to measure."""

    def problem(self, kind: str, where: str, what: str, remedy: str, taken: str = "", rare: int = 1000) -> None:
        """Record a problem.

        Args:
            kind: problems of equal kind are counted together.
            where: file, and image or annotation.
            what: what is wrong.
            remedy: what to do.
            taken: how the framework reads it. Problems with this text become a note in `settle` if they are rare.
            rare: in at most one of so many annotations.
        """
        if kind not in self.faults:
            self.faults[kind] = Finding(one_line(where), one_line(what), one_line(remedy), taken, rare)
        self.faults[kind].count += 1

    def note(self, kind: str, where: str, what: str, times: int = 1) -> None:
        """Record that something unusual is read in its usual meaning. ``what`` says which."""
        if kind not in self.readings:
            self.readings[kind] = Finding(one_line(where), one_line(what), "")
        self.readings[kind].count += times

    def settle(self, total: int) -> None:
        """Turn the problems that are rare among ``total`` annotations into notes, if they have a usual reading."""
        for kind, fault in list(self.faults.items()):
            if fault.taken and fault.count * fault.rare <= total:
                del self.faults[kind]
                self.note(kind, fault.where, f"{fault.what}; {fault.taken}", fault.count)

    def merge(self, other: Report) -> None:
        """Add the findings of ``other``, for example of another process."""
        for mine, theirs in ((self.faults, other.faults), (self.readings, other.readings)):
            for kind, finding in theirs.items():
                if kind in mine:
                    mine[kind].count += finding.count
                else:
                    mine[kind] = finding
        self.counts.update(other.counts)
        self.facts |= other.facts

    @property
    def problems(self) -> list[str]:
        """One line for each kind of problem."""
        return [fault.line() for fault in self.faults.values()]

    @property
    def notes(self) -> list[str]:
        """One line for each kind of unusual reading, with the number of times."""
        return [f"{found.count:,} × {found.what} (first: {found.where})" for found in self.readings.values()]


def one_line(text: str) -> str:
    """Return ``text`` on one line, not too long, with escapes for what a terminal cannot show."""
    return printable(text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}")
