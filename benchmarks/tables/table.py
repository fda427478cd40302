"""What a table is, before it is written in a format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.statistics.comparisons import HIGHER, LOWER, NOISE, TOO_SMALL

SYMBOLS = {HIGHER: "↑", LOWER: "↓", NOISE: "≈", TOO_SMALL: "?"}
"""Marks of a comparison with the baseline."""


@dataclass(frozen=True)
class Cell:
    """One cell. Its parts are written after each other."""

    text: str
    """The number with its standard deviation, or a label."""
    interval: str = ""
    """Ends of the 95 % interval, such as "59.1, 60.7"."""
    mark: str = ""
    """A key of `SYMBOLS`, or ""."""
    notes: tuple[str, ...] = ()
    """Letters of the footnotes."""
    published: str = ""
    """The published number and the difference."""
    best: bool = False
    """Whether it is the best of its column."""

    def written(self, symbols: dict[str, str] = SYMBOLS) -> str:
        """Return all parts as plain text."""
        parts = [self.text, f"[{self.interval}]" if self.interval else "", symbols.get(self.mark, "")]
        parts += [f"[{note}]" for note in self.notes] + ([f"({self.published})"] if self.published else [])
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Head:
    """Heading of a column."""

    text: str
    notes: tuple[str, ...] = ()
    group: str = ""
    """What it shares with columns beside it, such as "frozen"; "" if the table has no groups."""

    def written(self) -> str:
        """Return the heading without its group, with the letters of its footnotes."""
        return " ".join((self.text, *(f"[{note}]" for note in self.notes)))


@dataclass
class Table:
    """A table with what belongs above and below it."""

    title: str
    heads: list[Head]
    """The first is that of the labels."""
    rows: list[list[Cell]]
    warning: str = ""
    """Stands first, emphasised."""
    intro: str = ""
    sections: list[tuple[str, list[str]]] = field(default_factory=list)
    """(heading, lines) below the table."""
    appendix: list[tuple[str, list[str]]] = field(default_factory=list)
    """(heading, lines) that are written only on demand."""


@dataclass
class Document:
    """Tables that are written into one file, and all their numbers."""

    title: str
    tables: list[Table]
    records: list[dict[str, Any]]
    """A number each, with all that is known about it; the same keys in each."""
    left_out: Sequence[str] = ()
    """A line for each run that is in no table."""


def letter(index: int) -> str:
    """Return the name of footnote number ``index``: a to z, then aa, bb and so on."""
    return "abcdefghijklmnopqrstuvwxyz"[index % 26] * (1 + index // 26)


def mark_best(rows: list[list[Cell]], values: list[list[float | None]], columns: Sequence[int]) -> list[list[Cell]]:
    """Return ``rows`` with the highest of ``values`` in each of ``columns`` marked, if a column has several numbers."""
    best: set[tuple[int, int]] = set()
    for column in columns:
        found = {row: value for row, line in enumerate(values) if (value := line[column]) is not None}
        if len(set(found.values())) > 1:
            best |= {(row, column) for row, value in found.items() if value == max(found.values())}
    return [
        [Cell(**{**cell.__dict__, "best": True}) if (row, column) in best else cell for column, cell in enumerate(line)]
        for row, line in enumerate(rows)
    ]
