"""Find the sample files of the rows of a report: those of the first seed of each row."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from benchmarks.report.section import Contents, row_titles
from benchmarks.tables.collected import Entry, Group, Task
from pixbench.errors import UserError
from pixbench.results import read_arrays
from transfer.samples import SAMPLES

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """The samples of one row."""

    title: str
    arrays: dict[str, np.ndarray]
    more: dict[str, np.ndarray]
    """Arrays of the second file, if it was asked for."""

    def places(self) -> dict[tuple[str, bytes], int]:
        """Return the number of each picture in the arrays, by its name and its bytes: mini worlds have pictures of one name."""
        names = self.arrays["images"].tolist()
        return {(name, self.picture(number)): number for number, name in enumerate(names)}

    def picture(self, number: int) -> bytes:
        """Return the JPEG file of picture ``number``."""
        return self.arrays[f"picture_{number}"].tobytes()


@dataclass(frozen=True)
class Sampled:
    """The samples of all rows that did the same task."""

    title: str
    task: Task
    scale: str
    rows: dict[str, Row]
    """By their labels, in the order of the tables."""

    def pictures(self) -> list[tuple[str, bytes]]:
        """Return name and bytes of all pictures: those of the first row, then those that only others have."""
        return list(dict.fromkeys(key for row in self.rows.values() for key in row.places()))


def sampled(contents: Contents, more: str | None = None) -> Iterator[Sampled]:
    """Yield the samples of each task; only of rows that also have the file ``more`` (without ".npz"), if it is given."""
    wanted = [SAMPLES] + ([more] if more else [])
    for group in contents.groups:
        titles = row_titles(group)
        for task in group.tasks():
            rows: dict[str, Row] = {}
            for label in contents.labels:
                entry = group.rows.get(label, {}).get(task)
                if entry and (files := _read(entry, wanted)):
                    rows[label] = Row(titles[label], files[0], files[-1])
            if rows:
                yield Sampled(_title(group, task), task, group.scale, rows)


def _title(group: Group, task: Task) -> str:
    return task.about.title + task.own + (f" ({group.scale} scale)" if group.scale != "paper" else "")


def _read(entry: Entry, wanted: list[str]) -> list[dict[str, np.ndarray]] | None:
    """Return the files of the run with the smallest seed; None if it has not all, or one is damaged."""
    run, path = min(zip(entry.runs, entry.paths, strict=True), key=lambda pair: (pair[0]["seed"] or 0, pair[1]))
    if not all(f"{name}.npz" in (run.get("stored") or {}) for name in wanted):
        return None
    try:
        return [read_arrays(path, run, f"{name}.npz") for name in wanted]
    except UserError:  # `pixbench results verify` says what is wrong
        return None


def opened(picture: bytes) -> Image.Image:
    """Return the picture in a JPEG file."""
    return Image.open(io.BytesIO(picture)).convert("RGB")


def in_turns(lists: Sequence[Iterator[T]], size: Callable[[T], int], budget: int) -> list[list[T]]:
    """Return the items of each list that fit into ``budget`` bytes: first the first of each, then the second, and so on.

    As long as there is room, the first of a list is taken, whatever its size.
    """
    found: list[list[T]] = [[] for _ in lists]
    left = dict(enumerate(lists))
    while left and budget > 0:
        for place, items in [*left.items()]:
            item = next(items, None)
            if item is None or budget <= 0 or (found[place] and size(item) > budget):
                del left[place]
                continue
            found[place].append(item)
            budget -= size(item)
    return found
