"""Check Cityscapes' polygons and instance ids as Detectron2 and cityscapesscripts read them.

Detectron2 learns from the polygons of the training images; cityscapesscripts measures with the instance ids of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from PIL import Image

from transfer.datasets.parallel import check_all
from transfer.datasets.pictures import BROKEN, Wanted, compare, look_at, reason
from transfer.datasets.report import Report

AGAIN = "unpack gtFine_trainvaltest.zip again"
GROUP = "group"
"""Ending of the labels of objects that stand too close together to be told apart."""
LEAST = 100
"""Pixels of the smallest instance that cityscapesscripts measures."""
ALIKE = 20
"""Polygons and instance ids may disagree in one of so many images."""
WHOLE = ("I;16", "I;16B", "I;16L", "I;16N", "I", "L", "P")
"""Pillow's modes of whole numbers in one channel."""


class _Object(msgspec.Struct):
    label: str
    polygon: list[tuple[float, float]]
    deleted: Any = msgspec.UNSET


class _Annotation(msgspec.Struct):
    imgHeight: int
    imgWidth: int
    objects: list[_Object]


def check(items: Sequence[tuple[Path, Path, Path]], *, split: str, title: str) -> Report:
    """Check the three files of each image: picture, ``*_polygons.json`` and ``*_instanceIds.png``.

    Args:
        items: the three files of each image.
        split: "train" or "test". Nothing reads the instance ids of "train", so they are not checked.
        title: what the progress bar calls the files.
    """
    report = check_all(partial(_check_items, split=split), items, title)
    drawn, measured = (report.readings.pop(name, None) for name in ("drawn", "measured"))
    report.settle(len(items))
    if split == "train" and not drawn and not report.faults:
        what = (
            f"this and all other polygons for train draw no {_names()}, other than in groups: there is nothing to learn"
        )
        report.problem("nothing drawn", str(items[0][1]) if items else title, what, AGAIN)
    if split == "test" and not measured and not report.faults:
        what = (
            f"this and all other instance ids for test have no {_names()} of at least {LEAST} pixels: there is nothing to "
            "measure"
        )
        report.problem("nothing measured", str(items[0][2]) if items else title, what, AGAIN)
    return report


def _check_items(items: Sequence[tuple[Path, Path, Path]], split: str) -> Report:
    report = Report()
    for picture, polygons, instances in items:
        drawn = _check_polygons(polygons, report)
        files = [(polygons, drawn)]
        if split == "test":
            files.append((instances, found := _check_instances(instances, report)))
            if drawn.evaluated and found.evaluated is False:
                what = f"has no pixel of any {_names()}, but {polygons.name} draws some"
                taken = "its instance ids are what is measured"
                report.problem("instances differ", str(instances), what, AGAIN, taken, rare=ALIKE)
        try:
            seen = look_at(picture)
        except BROKEN as error:  # or missing
            report.problem("picture broken", str(picture), f"cannot be read ({reason(error)})", "replace it")
            continue
        for path, of_file in files:
            compare(Wanted(picture, of_file.width, of_file.height, str(path)), seen, report)
    return report


class _File(NamedTuple):
    """What one file says of an image; nothing if it cannot be read."""

    width: int | None = None
    height: int | None = None
    evaluated: bool | None = None
    """Whether it has an object of an evaluated class, single or in a group."""


def _check_polygons(path: Path, report: Report) -> _File:
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_Annotation)
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        report.problem("polygons broken", str(path), f"cannot be read ({reason(error)})", AGAIN)
        return _File()
    size, evaluated = (content.imgWidth, content.imgHeight), False
    for number, thing in enumerate(content.objects):
        if thing.deleted is not msgspec.UNSET:  # Detectron2 does not look at the value
            if not thing.deleted:
                what = 'object left out by Detectron2 because it has an entry "deleted", although its value says no'
                report.note("deleted", f"{path}, object {number}", what)
            continue
        name = thing.label if thing.label in _ids() else thing.label.removesuffix(GROUP)
        if fault := _object_fault(thing, name, *size):
            report.problem(f"object {fault[0]}", f"{path}, object {number}", *fault[1:])
        elif not thing.polygon:
            report.note("object without points", f"{path}, object {number}", "object without points, left out")
        elif name in _evaluated():
            evaluated = True
            if not thing.label.endswith(GROUP) and _area(thing.polygon):
                report.note("drawn", str(path), "")
    return _File(*size, evaluated)


def _object_fault(thing: _Object, name: str, width: int, height: int) -> tuple[str, str, str] | None:
    """Return kind, sentence and remedy for an object that Detectron2 cannot use. ``name``: its label without "group"."""
    if name not in _ids():
        near = get_close_matches(thing.label, _ids(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return (
            "label",
            f"has the label {thing.label!r}, which Cityscapes does not have{hint}",
            "correct it in that file",
        )
    if _ids()[name] < 0 or not thing.polygon:  # Detectron2 passes it over
        return None
    if len(thing.polygon) < 3:
        return "points", f"({thing.label}) has a polygon of fewer than 3 points, which has no area", AGAIN
    points = np.asarray(thing.polygon)
    outside = (points < (-width / 2, -height / 2)) | (points > (1.5 * width, 1.5 * height))
    if outside.any():
        x, y = points[outside.any(axis=1)][0]
        what = f"({thing.label}) has a point at ({x:g}, {y:g}), far outside of {width} × {height} pixels"
        return "outside", what, "scale the polygons to the size of the picture"
    return None


def _area(polygon: list[tuple[float, float]]) -> float:
    """Return the area inside; Detectron2 passes over an object without any."""
    x, y = np.asarray(polygon).T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2


def _check_instances(path: Path, report: Report) -> _File:
    where = str(path)
    try:
        with Image.open(path) as image:
            image.load()
            size, mode, ids = image.size, image.mode, np.asarray(image)
    except BROKEN as error:  # or missing
        report.problem("instances broken", where, f"cannot be read ({reason(error)})", AGAIN)
        return _File()
    if mode not in WHOLE:
        report.problem("instances mode", where, f"has the mode {mode} instead of whole numbers in one channel", AGAIN)
        return _File(*size)
    known, evaluated = set(_ids().values()), set(_evaluated().values())
    found = dict(zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True))
    labels = {number: number // 1000 if number >= 1000 else number for number in found}
    wrong = next((number for number, label in labels.items() if label not in known), None)
    if wrong is not None:
        what = f"has the instance id {wrong}, but {labels[wrong]} is not the id of a label of Cityscapes (0 to 33)"
        report.problem("instances number", where, what, AGAIN)
        return _File(*size)
    if any(label in evaluated and number >= 1000 and found[number] >= LEAST for number, label in labels.items()):
        report.note("measured", where, "")
    return _File(*size, not evaluated.isdisjoint(labels.values()))


@cache
def _ids() -> dict[str, int]:
    """Id of each label of Cityscapes."""
    from cityscapesscripts.helpers.labels import labels

    return {label.name: label.id for label in labels}


@cache
def _evaluated() -> dict[str, int]:
    """Id of each label whose instances are evaluated: person to bicycle."""
    from cityscapesscripts.helpers.labels import labels

    return {label.name: label.id for label in labels if label.hasInstances and not label.ignoreInEval}


def _names() -> str:
    *names, last = _evaluated()
    return f"{', '.join(names)} or {last}"
