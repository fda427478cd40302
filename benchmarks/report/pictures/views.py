"""What pre-training trains on: the two views of a few images, and their positive pairs.

Shapes: a view has n × n cells, cell index y·n + x; P positive pairs. All lengths are in units of the drawing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from benchmarks.report.markup import fill
from benchmarks.report.pictures.drawing import jpeg_uri
from benchmarks.report.pictures.kept import in_turns, opened
from benchmarks.report.section import Contents, Section
from pixbench.errors import UserError
from pixbench.file_versions import VIEWS_FILE
from pixbench.results import read_arrays

BUDGET = 700_000
"""Bytes that the pictures may take."""
IMAGES = 2
"""Most images of a run."""
SIDE = 224
"""Side of a drawn view, and height of a drawn image."""
WIDEST = 320
GAP = 28
DRAWN = 5
"""Number of pairs that are drawn before a cell is chosen."""


@dataclass(frozen=True)
class Pair:
    """The two views of an image."""

    name: str
    sources: tuple[str, str, str]
    """Addresses of the image and of its views."""
    size: tuple[float, float]
    """Of the drawn image."""
    boxes: list[tuple[float, float, float, float]]
    """Of the views in the drawn image: x, y, width, height."""
    common: list[tuple[float, float, float, float]]
    """What the other view shows of each view, in the drawing; empty if the method has positive pairs or nothing is common."""
    cells: int
    """n."""
    pairs: list[list[int]] | None
    """(P, 2), the positive pairs; None for a method that has none."""
    first: list[list[int]]
    """Pairs that are drawn at the start."""

    def bytes(self) -> int:
        """Return the number of bytes of its pictures."""
        return sum(map(len, self.sources))

    @property
    def starts(self) -> tuple[float, float]:
        """The left ends of the two views in the drawing."""
        return self.size[0] + GAP, self.size[0] + GAP + SIDE + 2 * GAP

    @property
    def width(self) -> float:
        """Width of the drawing."""
        return self.starts[1] + SIDE

    def paired(self, view: int) -> set[int]:
        """Return the cells of view 0 or 1 that have a partner."""
        return {pair[view] for pair in self.pairs or ()}

    def about(self) -> str:
        """Return the drawing in words."""
        if self.pairs is None:
            return f"Image {self.name} with the boxes of its two views, and the views with what they have in common in a frame."
        return (
            f"Image {self.name} with the boxes of its two views, and the views in {self.cells} × {self.cells} cells. "
            f"{len(self.pairs)} positive pairs: {len(self.paired(0))} cells of view 1 have a partner in view 2."
        )


@dataclass(frozen=True)
class Run:
    """A pre-training run."""

    name: str
    method: str
    threshold: float | None
    pairs: list[Pair]


def section(contents: Contents) -> Section | None:
    """Return the views of all pre-training runs that have kept some; None without any."""
    held = {name: arrays for name, run in contents.pretraining.items() if (arrays := _read(run.path, run.result))}
    found = in_turns([drawings(arrays) for arrays in held.values()], Pair.bytes, BUDGET)
    runs = []
    for (name, arrays), pairs in zip(held.items(), found, strict=True):
        threshold = float(arrays["threshold"])
        method = str(contents.pretraining[name].result.get("method") or "this method")
        if pairs:
            runs.append(Run(name, method, None if isnan(threshold) else threshold, pairs))
    if not runs:
        return None
    intro = "Two views of an image are cut out at random and changed in colour. These are views of the first step of each run."
    body = fill("pictures_views.html.j2", runs=runs, side=SIDE)
    data = [[{"cells": pair.cells, "pairs": pair.pairs} for pair in run.pairs] for run in runs]
    return Section("views", "Views of pre-training", intro, body, data, "pictures_views.js", "pictures.css")


def _read(path: Any, result: dict[str, Any]) -> dict[str, np.ndarray] | None:
    if VIEWS_FILE not in (result.get("stored") or {}):
        return None
    try:
        return read_arrays(path, result, VIEWS_FILE)
    except UserError:  # `pixbench results verify` says what is wrong
        return None


def drawings(arrays: dict[str, np.ndarray]) -> Iterator[Pair]:
    """Yield the first images of a run."""
    cells, positive = int(arrays["cells"]), not isnan(float(arrays["threshold"]))
    for number, name in enumerate(arrays["images"].tolist()[:IMAGES]):
        files = [arrays[f"{part}_{number}"].tobytes() for part in ("picture", "view1", "view2")]
        width, height = opened(files[0]).size
        scale = min(SIDE / height, WIDEST / width)
        size = width * scale, height * scale
        boxes = [_box(box, size) for box in arrays[f"boxes_{number}"].tolist()]
        pairs = arrays[f"pairs_{number}"].tolist() if positive else None
        common = [] if positive else _common(arrays[f"common_{number}"], size[0])
        sources = jpeg_uri(files[0]), jpeg_uri(files[1]), jpeg_uri(files[2])
        yield Pair(name, sources, size, boxes, common, cells, pairs, spread(pairs or []))


def _box(box: list[float], size: tuple[float, float]) -> tuple[float, float, float, float]:
    x1, x2 = sorted((box[0] * size[0], box[2] * size[0]))  # a flipped view has x1 > x2
    y1, y2 = sorted((box[1] * size[1], box[3] * size[1]))
    return x1, y1, x2 - x1, y2 - y1


def _common(parts: np.ndarray, width: float) -> list[tuple[float, float, float, float]]:
    if np.isnan(parts).any():
        return []
    starts = width + GAP, width + GAP + SIDE + 2 * GAP
    return [
        (start + SIDE * left, SIDE * top, SIDE * (right - left), SIDE * (bottom - top))
        for start, (left, top, right, bottom) in zip(starts, parts.tolist(), strict=True)
    ]


def spread(pairs: list[list[int]]) -> list[list[int]]:
    """Return up to `DRAWN` pairs, evenly spread over the cells of view 1 that have a partner."""
    first = {one: other for one, other in reversed(pairs)}  # the nearest partner is the first
    cells = sorted(first)
    count = min(DRAWN, len(cells))
    return [
        [cell, first[cell]] for cell in (cells[(2 * place + 1) * len(cells) // (2 * count)] for place in range(count))
    ]
