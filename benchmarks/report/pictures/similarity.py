"""Similarity maps: what a backbone finds similar to a cell of a picture; and principal components as colours.

Shapes: a map has h × w cells with D numbers; K classes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report.markup import fill
from benchmarks.report.pictures.drawing import jpeg_uri, uri
from benchmarks.report.pictures.kept import Sampled, in_turns, opened, sampled
from benchmarks.report.section import Contents, Section
from transfer.samples import FEATURES, nearest

BUDGET = 1_800_000
"""Bytes that pictures and maps may take."""


@dataclass(frozen=True)
class Shown:
    """A picture with the maps of all rows."""

    name: str
    data: dict[str, Any]
    """What the script needs."""
    src: str
    components: dict[str, str]
    """Label -> address of the picture of the principal components."""
    size: tuple[int, int]

    def bytes(self) -> int:
        """Return about how many bytes it takes in the page."""
        maps = sum(len(cells["cells"]) + len(cells["truth"]) for cells in self.data["maps"].values())
        return len(self.src) + maps + sum(map(len, self.components.values()))


def section(contents: Contents) -> Section | None:
    """Return the similarity maps; None if no run has kept features."""
    tasks = _one_for_each_data_set([*sampled(contents, FEATURES)])
    found = in_turns([pictures(task) for task in tasks], Shown.bytes, BUDGET)
    groups = [(task, shown) for task, shown in zip(tasks, found, strict=True) if shown]
    if not groups:
        return None
    titles = {label: row.title for task in tasks for label, row in task.rows.items()}
    error = max(
        float(row.more[name])
        for task in tasks
        for row in task.rows.values()
        for name in row.more
        if name.startswith("error_")
    )
    body = fill("pictures_similarity.html.j2", groups=groups, titles=titles, error=error)
    intro = (
        "Choose a cell of a picture: bright cells have similar features (cosine). A backbone that knows objects lights up the "
        "whole object and little else."
    )
    baseline = contents.options.baseline_of([*titles])
    first, *others = sorted(titles, key=lambda label: label == baseline)  # it comes last
    data = {
        "titles": titles,
        "start": [first, baseline or (others or [first])[0]],
        "groups": [{"title": task.title, "pictures": [one.data for one in shown]} for task, shown in groups],
    }
    return Section("similarity", "Similarity maps", intro, body, data, "pictures_similarity.js", "pictures.css")


def _one_for_each_data_set(tasks: list[Sampled]) -> list[Sampled]:
    """Return, for each data set and scale, the task with the most rows, and among those the one with the finest maps."""
    best: dict[Any, Sampled] = {}
    for task in tasks:
        key = task.task.about.datasets, task.scale, task.task.classes
        if key not in best or _worth(task) > _worth(best[key]):
            best[key] = task
    return [*best.values()]


def _worth(task: Sampled) -> tuple[int, int]:
    return len(task.rows), max(len(row.more["cells_0"]) for row in task.rows.values())


def pictures(task: Sampled) -> Iterator[Shown]:
    """Yield the pictures of a task with their maps."""
    places = {label: row.places() for label, row in task.rows.items()}
    for key in task.pictures():
        name, picture = key
        maps, components, classes = {}, {}, []
        for label, row in task.rows.items():
            if key not in places[label]:
                continue
            number = places[label][key]
            cells, classes = row.more[f"cells_{number}"], [one.strip() for one in row.arrays["classes"].tolist()]
            height, width, _ = cells.shape
            maps[label] = {
                "height": height,
                "width": width,
                "scale": float(row.more[f"scale_{number}"]) ** 2,
                "cells": _text(cells),
                "truth": _text(nearest(row.arrays[f"truth_{number}"], (width, height))),
            }
            components[label] = uri(Image.fromarray(row.more[f"pca_{number}"]), lossless=True)
        size = opened(picture).size
        data = {"name": name, "width": size[0], "height": size[1], "classes": classes, "maps": maps}
        yield Shown(name, data, jpeg_uri(picture), components, size)


def _text(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
