"""The same pictures with what the compared rows found in them, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.report.markup import fill
from benchmarks.report.pictures.drawing import Colour, enlarged, object_colour, uri, with_labels, with_objects
from benchmarks.report.pictures.found import IOU, Objects, accuracy, in_words, matched, objects, shares
from benchmarks.report.pictures.kept import Row, Sampled, in_turns, opened, sampled
from benchmarks.report.section import Contents, Section
from transfer.samples import unpacked

OPEN = 3
"""Pictures that are shown before more are asked for."""
BUDGET = 3_500_000
"""Bytes that the pictures may take; there are fewer pictures where there are more rows."""


@dataclass(frozen=True)
class Cell:
    """A drawn picture."""

    src: str
    alt: str
    note: str
    """What is said below it."""
    size: tuple[int, int]


@dataclass(frozen=True)
class Line:
    """A picture, its truth and what each row found, None for a row without it."""

    name: str
    picture: Cell
    truth: Cell
    found: list[Cell | None]
    classes: dict[str, Colour]
    """Classes whose colours are in the line."""

    def size(self) -> int:
        """Return the number of bytes in the page."""
        return sum(len(cell.src) for cell in (self.picture, self.truth, *self.found) if cell)


@dataclass(frozen=True)
class Grid:
    """A task."""

    title: str
    heads: list[str]
    lines: list[Line]
    left_out: int
    labels: bool
    """Whether these are label maps."""

    @property
    def classes(self) -> dict[str, Colour]:
        """The classes in it, and their colours."""
        return {name: colour for line in self.lines for name, colour in line.classes.items()}


def section(contents: Contents) -> Section | None:
    """Return a grid of pictures for each protocol; None if no run has kept any."""
    tasks = [*sampled(contents)]
    drawn = in_turns([lines(task) for task in tasks], Line.size, BUDGET)
    grids = [
        Grid(
            task.title,
            [row.title for row in task.rows.values()],
            found,
            len(task.pictures()) - len(found),
            _labels(task),
        )
        for task, found in zip(tasks, drawn, strict=True)
        if found
    ]
    if not grids:
        return None
    intro = (
        "The same few test pictures in each protocol, chosen by the digests of their names, and what the first seed of each row "
        "found in them."
    )
    body = fill("pictures_predictions.html.j2", grids=grids, overlap=IOU, open=OPEN)
    return Section("predictions", "Predictions", intro, body, style="pictures.css")


def _labels(task: Sampled) -> bool:
    return "truth_0" in next(iter(task.rows.values())).arrays


def lines(task: Sampled) -> Iterator[Line]:
    """Yield the pictures of a task, drawn when they are asked for."""
    places = {label: row.places() for label, row in task.rows.items()}
    for key in task.pictures():
        picture, having = opened(key[1]), [label for label in task.rows if key in places[label]]
        first = task.rows[having[0]]
        classes: dict[str, Colour] = {}

        def cell(
            row: Row, number: int, what: str, picture: Image.Image = picture, used: dict[str, Colour] = classes
        ) -> Cell:
            draw = _labels_cell if f"truth_{number}" in row.arrays else _objects_cell
            drawn, words, note, colours = draw(picture, row.arrays, number, what)
            used |= colours
            title = "truth" if what == "truth" else row.title
            return Cell(uri(drawn), f"{title}: {words}", note, drawn.size)

        truth = cell(first, places[having[0]][key], "truth")
        found = [
            cell(row, places[label][key], "found") if label in having else None for label, row in task.rows.items()
        ]
        plain = enlarged(picture)
        yield Line(key[0], Cell(uri(plain), f"picture {key[0]}", "", plain.size), truth, found, classes)


Drawn = tuple[Image.Image, str, str, dict[str, Colour]]
"""The picture, what it shows in words, what is said below it, and the colours of the classes in it."""


def _labels_cell(picture: Image.Image, arrays: dict[str, np.ndarray], number: int, what: str) -> Drawn:
    names, colours = arrays["classes"].tolist(), arrays["colours"]
    if not len(colours):
        colours = np.array([object_colour(kind) for kind in range(len(names))], np.uint8)
    labels, truth = arrays[f"{what}_{number}"], arrays[f"truth_{number}"]
    right = accuracy(labels, truth)
    note = "" if what == "truth" or right is None else f"{right:.0f} % right"
    words = shares(labels, names) + (f"; {note}" if note else "")
    used = {names[kind].strip(): tuple(colours[kind].tolist()) for kind in np.unique(labels) if kind < len(names)}
    return with_labels(picture, labels, colours), words, note, used


def _objects_cell(picture: Image.Image, arrays: dict[str, np.ndarray], number: int, what: str) -> Drawn:
    names, truth = arrays["classes"].tolist(), objects(arrays, "truth", number)
    count = max(1, len(truth.boxes))  # scores of different runs cannot be compared, so each shows as many as there are
    shown = truth if what == "truth" else objects(arrays, "found", number, count)
    right = [True] * len(shown.boxes) if what == "truth" else matched(shown, truth)
    note = "" if what == "truth" else f"{sum(right)} of {len(truth.boxes)} right" if right else "nothing found"
    masks = None if shown.masks is None else unpacked(shown.masks, picture.size)
    colours = [object_colour(int(kind)) for kind in shown.classes]
    drawn = with_objects(picture, shown.boxes, _words(shown, names), colours, right, masks, shown.keypoints)
    return drawn, in_words(shown, names) + (f"; {note}" if note and right else ""), note, {}


def _words(shown: Objects, names: list[str]) -> list[str]:
    if shown.scores is None:
        return [names[kind] for kind in shown.classes]
    return [f"{names[kind]} {score:.2f}" for kind, score in zip(shown.classes, shown.scores, strict=True)]
