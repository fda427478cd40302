"""Read and check VOC's XML annotations. Training, evaluation and the check before them all use `read`.

Fields that labelling tools leave out are read in their usual meaning, and each use of this is noted in a `Report`. A box is
(xmin, ymin, xmax, ymax) in pixels that count from 1, both ends included.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transfer.datasets.boxes import Box, check_place
from transfer.datasets.classes import Classes
from transfer.datasets.parallel import check_all
from transfer.datasets.pictures import BROKEN, Wanted, check_pictures, look_at
from transfer.datasets.report import Report

YES, NO = ("1", "yes", "true"), ("", "0", "no", "false", "unspecified", "none", "unknown")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FIX = "correct it"


@dataclass(frozen=True)
class Thing:
    """An object in a picture."""

    name: str
    box: Box
    difficult: bool
    """VOC does not count such an object in the evaluation; Detectron2 trains on it."""


@dataclass(frozen=True)
class Annotation:
    """What an XML file says. The size is None if it does not say one."""

    width: int | None
    height: int | None
    things: tuple[Thing, ...]


def read(path: Path, report: Report) -> Annotation | None:
    """Read ``path`` and report what is unusual or wrong; None if it is not an annotation."""
    where = str(path)
    try:
        root = ET.parse(path).getroot()
    except FileNotFoundError:
        report.problem("xml missing", where, "is missing", "restore it, or take the picture out of the list")
        return None
    except (ET.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        report.problem("xml broken", where, f"is not a VOC annotation ({error})", "unpack or write it again")
        return None
    if root.tag != "annotation":
        report.problem("xml root", where, f"is not a VOC annotation: it begins with <{root.tag}>", "write it again")
        return None
    things = [_thing(number, entry, where, report) for number, entry in enumerate(root.findall("object"), 1)]
    found = tuple(thing for thing in things if thing)
    if (twins := len(found) - len({(thing.name, thing.box) for thing in found})) > 0:
        what = f"has {twins} object(s) twice, with the same class and box"
        report.problem("object twice", where, what, "delete one of them", "both are counted", rare=100)
    return Annotation(*_size(root, where, report), found)


def _size(root: ET.Element, where: str, report: Report) -> tuple[int | None, int | None]:
    texts = [(root.findtext(f"size/{name}") or "").strip() for name in ("width", "height")]
    try:
        width, height = (float(text) if text else 0.0 for text in texts)
    except ValueError:
        width, height = math.nan, math.nan
    if not (width >= 0 and height >= 0 and width.is_integer() and height.is_integer()):
        report.problem("size", where, f"<size> is {' × '.join(texts)}, not two whole numbers of pixels", FIX)
        return None, None
    if not width or not height:
        report.note("no size", where, "annotation without <size>, taken from the picture")
        return None, None
    return int(width), int(height)


def _thing(number: int, entry: ET.Element, where: str, report: Report) -> Thing | None:
    where = f"{where}, object {number}"
    name = (entry.findtext("name") or "").strip()
    if not name:
        report.problem("no name", where, "has no class (<name>)", FIX)
        return None
    for field in ("pose", "truncated"):
        if not (entry.findtext(field) or "").strip():
            report.note(f"no {field}", where, f"object without <{field}>, which no protocol needs")
    box = _box(entry, where, report)
    return Thing(name, box, _difficult(entry, where, report)) if box else None


def _difficult(entry: ET.Element, where: str, report: Report) -> bool:
    text = (entry.findtext("difficult") or "").strip().lower()
    plain = text.removesuffix(".0")
    if plain not in (*YES, *NO):
        report.problem("difficult", where, f"<difficult> is {text!r}", "write 0 or 1")
        return False
    if text not in ("0", "1"):
        how = (
            f"<difficult> {text!r}"
            if text
            else "no <difficult>"
            if entry.find("difficult") is None
            else "an empty <difficult>"
        )
        report.note(f"difficult {text}", where, f"object with {how}, taken as {int(plain in YES)}")
    return plain in YES


def _box(entry: ET.Element, where: str, report: Report) -> Box | None:
    texts = [(entry.findtext(f"bndbox/{name}") or "").strip() for name in CORNERS]
    try:
        left, top, right, bottom = map(float, texts)
    except ValueError:
        left = top = right = bottom = math.nan
    shown = ", ".join(f"{name} {text or 'missing'}" for name, text in zip(CORNERS, texts, strict=True))
    if not all(map(math.isfinite, (left, top, right, bottom))):
        report.problem("box", where, f"<bndbox> is not four numbers ({shown})", FIX)
        return None
    if right < left or bottom < top:
        report.problem("box order", where, f"xmax or ymax of its box is less than xmin or ymin ({shown})", FIX)
        return None
    if not all(value.is_integer() for value in (left, top, right, bottom)):
        report.note("box fractions", where, "box with fractions of pixels, taken as they are")
    return left, top, right, bottom


def check(pairs: Sequence[tuple[Path, Path]], classes: Classes, split: str, where: str) -> Report:
    """Check all annotations and pictures of one list.

    Args:
        pairs: picture and annotation of each name.
        classes: the classes that may occur.
        split: "train" or "test"; a test needs an object that is not difficult.
        where: path of the list, for messages.
    """
    report = check_all(partial(_check, classes), pairs, where)
    objects = report.counts["objects"]
    if not report.faults and not report.counts["easy" if split == "test" else "objects"]:
        what = f"no object{' that is not difficult' if objects else ''} is annotated in the pictures of this list"
        lacks = f"there is nothing to {'measure' if split == 'test' else 'learn'}; annotate the pictures"
        report.problem("no objects", where, what, lacks)
    kind = "easy" if split == "test" else "all"
    report.facts["absent"] = [n for k, n in enumerate(classes.names) if not report.counts[f"{kind} of class {k}"]]
    report.settle(objects)
    return report


def _check(classes: Classes, pairs: Sequence[tuple[Path, Path]]) -> Report:
    report, pictures = Report(), []
    for image, xml in pairs:
        annotation = read(xml, report)
        if annotation is None:
            continue
        pictures.append(Wanted(image, annotation.width, annotation.height, str(xml)))
        try:
            size = size_of(annotation, image)
        except BROKEN:  # check_pictures reports it
            continue
        for number, thing in enumerate(annotation.things, 1):
            _check_thing(thing, f"{xml}, object {number}", size, classes, report)
            report.counts["objects"] += 1
            report.counts["easy"] += not thing.difficult
            place = classes.find(thing.name)
            report.counts[f"all of class {place}"] += 1
            report.counts[f"easy of class {place}"] += not thing.difficult
    report.merge(check_pictures(pictures))
    return report


def size_of(annotation: Annotation, image: Path) -> tuple[int, int]:
    """Return width and height: those of the annotation, or else of the picture."""
    if annotation.width and annotation.height:
        return annotation.width, annotation.height
    picture = look_at(image)
    return picture.width, picture.height


def _check_thing(thing: Thing, where: str, size: tuple[int, int], classes: Classes, report: Report) -> None:
    place, (left, top, right, bottom) = classes.find(thing.name), thing.box
    if place is None:
        remedy = f"correct it{classes.near(thing.name)}; or run on classes of your own with --classes FILE"
        if classes.own:
            remedy = f"correct it{classes.near(thing.name)}, or add it there"
        report.problem(
            "class", where, f"class {thing.name!r} is not in {classes.source}, which has {classes.brief}", remedy
        )
    elif classes.names[place] != thing.name:
        report.note(f"class {thing.name}", where, f"class {thing.name!r}, taken as {classes.names[place]!r}")
    shown = f"({left:g}, {top:g}, {right:g}, {bottom:g})"
    check_place((left - 1, top - 1, right, bottom), size, where, shown, report)
