"""Check label maps as MMSegmentation reads them: by Pillow, unchanged, as 8-bit numbers of classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transfer.datasets.classes import Classes
from transfer.datasets.mask_numbers import IGNORED, PREPARE, TRAIN_IDS, Numbering, check_split, remedy
from transfer.datasets.parallel import check_all
from transfer.datasets.pictures import BROKEN, Wanted, compare, look_at, reason
from transfer.datasets.report import Report

LOSSY = ("JPEG", "MPO", "JPEG2000")
"""Pillow's formats that may not keep numbers exactly."""
STRETCHED = {"L;2": 2, "L;4": 4}
"""Pillow's decoders of greyscale with fewer than 8 bits, which stretch the numbers up to 255 -> bits."""
VOC_COLOURS = {0, 64, 128, 192, 224}
"""What the red, green and blue of VOC's colours consist of."""
ALONE = "save the numbers of the classes as a PNG of one channel with 8 bits"


def check(
    pairs: Sequence[tuple[Path, Path]], classes: Classes, *, zero_ignored: bool, split: str, title: str
) -> Report:
    """Check each picture and its label map.

    ``report.facts["classes without a pixel in SPLIT"]`` lists the names of the classes that no label map has.

    Args:
        pairs: pictures and their label maps.
        classes: the classes that the label maps may have.
        zero_ignored: as in `Numbering`.
        split: "train" or "test".
        title: what the progress bar calls the files.
    """
    numbering = Numbering(classes, zero_ignored)
    report = check_all(partial(_check_pairs, numbering=numbering), pairs, title)
    first = {n: report.readings.pop(_has(n)).where for n in range(IGNORED + 1) if _has(n) in report.readings}
    if "label map numbers" in report.faults:
        fault = report.faults["label map numbers"]
        fault.remedy = remedy(fault.where, {*first}, numbering)
    elif not any(kind.startswith("label map") for kind in report.faults):
        check_split(first, numbering, split, title, report)
    return report


def _check_pairs(pairs: Sequence[tuple[Path, Path]], numbering: Numbering) -> Report:
    report = Report()
    for picture, path in pairs:
        width, height = _check_label_map(path, numbering, report)
        try:
            compare(Wanted(picture, width, height, f"its label map {path}"), look_at(picture), report)
        except FileNotFoundError:
            report.problem("picture missing", str(picture), f"is missing, but its label map is {path}", "restore it")
        except BROKEN as error:
            report.problem("picture broken", str(picture), f"cannot be read ({reason(error)})", "replace it")
    return report


def _check_label_map(path: Path, numbering: Numbering, report: Report) -> tuple[int, int] | tuple[None, None]:
    """Check one label map, and note which numbers it has. Return width and height if it can be read."""
    where = str(path)
    try:
        with Image.open(path) as image:
            fault = _form(image, numbering)
            image.load()
            numbers = [] if fault else _numbers(image)
    except FileNotFoundError:
        how = f"make it with {PREPARE}" if where.endswith(TRAIN_IDS) else "restore it"
        report.problem("label map missing", where, "is missing, but its picture is there", how)
        return None, None
    except BROKEN as error:
        report.problem("label map broken", where, f"cannot be read ({reason(error)})", "replace it")
        return None, None
    if fault:
        report.problem(f"label map {fault[0]}", where, *fault[1:])
        return image.size
    for number in numbers:
        if 0 <= number <= IGNORED:
            report.note(_has(number), where, "")
    if wrong := numbering.wrong(numbers):
        more = f" (and others up to {wrong[-1]})" if wrong[1:] else ""
        what = f"has pixels of the number {wrong[0]}{more}, but {numbering.brief}"
        report.problem("label map numbers", where, what, "")  # `check` adds the remedy
    elif numbering.ignored.issuperset(numbers):
        report.note("label map ignored", where, "label map with ignored pixels only")
    return image.size


def _form(image: Any, numbering: Numbering) -> tuple[str, str, str] | None:
    """Return kind, sentence and remedy if MMSegmentation would not read the numbers that were meant.

    Args:
        image: a label map whose pixels are not read yet; reading them forgets how they are stored.
        numbering: what the numbers stand for.
    """
    bands = len(image.getbands())
    if image.format in LOSSY:
        wrong = numbering.wrong(_numbers(image)) if bands == 1 else []
        example = f" (here, for example, to {wrong[0]})" if wrong else ""
        return "lossy", f"is a {image.format} file, which changes numbers{example}", f"{ALONE}, never as JPEG"
    if 1 in image.size:  # MMSegmentation squeezes a label map
        return "thin", "is one pixel high or wide, which MMSegmentation cannot read", "take it out with its picture"
    if bands > 1:
        return "channels", f"has {bands} channels (mode {image.mode}) instead of one", _one_channel(image)
    if image.mode == "F":
        return "fractions", "holds fractions (mode F) instead of whole numbers", ALONE
    if image.mode == "P" and (number := _other_grey(image)) is not None:
        shown = image.getpalette("RGB")[3 * number]
        what = f"shows the grey {shown} where it holds the number {number}, as a palette makes it"
        return "palette", what, f"{ALONE}, without a palette"
    if image.tile and (bits := STRETCHED.get(str(image.tile[0].args))):
        return "stretched", f"is greyscale of {bits} bits, whose numbers Pillow stretches up to 255", ALONE
    return None


def _other_grey(image: Any) -> int | None:
    """Return a number of a label map whose palette shows another number as a grey; None if colours are not greys.

    Programs that make palettes small renumber the pixels, and the greys that are shown are the numbers that were meant.
    """
    palette = image.getpalette("RGB")
    colours = [palette[k : k + 3] for k in range(0, len(palette), 3)]
    if any(len(set(colour)) != 1 for colour in colours):
        return None
    used = [number for number, pixels in enumerate(image.histogram()) if pixels]
    return next((number for number in used if number < len(colours) and colours[number][0] != number), None)


def _one_channel(image: Any) -> str:
    """Return what to do with several channels, which are equal numbers or colours."""
    colours = [colour[:3] for _, colour in image.convert("RGB").getcolors(1 << 16) or []]
    if colours and all(red == green == blue for red, green, blue in colours):
        return f"{ALONE} (the colours are equal: take one)"
    kind = "these are VOC's colours: " if colours and VOC_COLOURS.issuperset(chain.from_iterable(colours)) else ""
    return f"{kind}{ALONE}"


def _numbers(image: Image.Image) -> list[int]:
    """Return all numbers of a label map, sorted."""
    if image.mode in ("L", "P"):  # several times faster than numpy
        return [number for number, pixels in enumerate(image.histogram()) if pixels]
    return [int(number) for number in np.unique(np.asarray(image))]


def _has(number: int) -> str:
    """Name of the note on which label maps have ``number``; `check` takes it out again."""
    return f"label maps with {number}"
