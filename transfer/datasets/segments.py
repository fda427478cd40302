"""Look at masks (polygons and run lengths) and keypoints of COCO's format."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, chain
from typing import Any, Literal, NamedTuple

import msgspec

from transfer.datasets.boxes import Box

POLYGONS = msgspec.json.Decoder(list[list[float]])
ANYTHING = msgspec.json.Decoder(Any)
HUGE = 2**31
"""No place in a picture is so far away."""
NOTHING = (b"", b"null", b"[]", b"{}")
LEAST = 0.5
"""Least overlap (intersection over union) of a box with the extent of its polygons."""


class Mask(NamedTuple):
    """What a mask is, and what is wrong with it ("" for nothing)."""

    kind: Literal["none", "polygons", "run lengths"]
    fault: str = ""
    skipped: bool = False
    """Whether Detectron2 passes over this fault."""
    extent: Box | None = None
    """(x1, y1, x2, y2) of all polygons or run lengths."""


def look_at_mask(raw: bytes, size: tuple[int, int]) -> Mask:
    """Look at the JSON text of "segmentation". ``size`` is (width, height) of the picture in pixels."""
    if raw in NOTHING:
        return Mask("none")
    if raw[:1] == b"{":
        return _run_lengths(ANYTHING.decode(raw), size)
    try:
        polygons = POLYGONS.decode(raw)
    except msgspec.ValidationError as error:
        return Mask("polygons", f"is not a list of polygons [[x1, y1, x2, y2, …], …] ({error})")
    good = [polygon for polygon in polygons if is_polygon(polygon)]
    if not good:
        return Mask("polygons", "has no polygon of three points", skipped=True)
    across, down = (list(chain.from_iterable(polygon[i::2] for polygon in good)) for i in (0, 1))
    fault = (
        "has a polygon with an odd number of coordinates or fewer than three points"
        if len(good) < len(polygons)
        else ""
    )
    extent = min(across), min(down), max(across), max(down)
    if min(extent[0] + size[0], extent[1] + size[1], 2 * size[0] - extent[2], 2 * size[1] - extent[3]) < 0:
        reach = f"from {extent[:2]} to {extent[2:]}, far out of the picture of {size[0]} × {size[1]}"
        return Mask("polygons", f"has polygons that reach {reach}", extent=extent)
    return Mask("polygons", fault, bool(fault), extent)


def is_polygon(numbers: list[float]) -> bool:
    """Return whether these are the coordinates of three points or more."""
    return len(numbers) >= 6 and len(numbers) % 2 == 0


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes (x1, y1, x2, y2); -1 if one of them is empty."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return both / (sum(areas) - both) if min(areas) > 0 else -1.0


def apart(one: Box, other: Box) -> bool:
    """Return whether two boxes have no point in common, not even with a margin of a pixel."""
    return max(one[0] - other[2], other[0] - one[2], one[1] - other[3], other[1] - one[3]) > 1


def _run_lengths(mask: Any, size: tuple[int, int]) -> Mask:
    counts, given = mask.get("counts"), mask.get("size")
    width, height = size
    if given != [height, width]:
        return _bad(f"has run lengths for [height, width] {given}, but the picture has {[height, width]}")
    if isinstance(counts, str):
        try:
            counts = list(_uncompressed(counts.encode("ascii")))
        except (UnicodeEncodeError, IndexError):
            return _bad("has run lengths that cannot be decoded")
    if not isinstance(counts, list) or any(type(count) is not int or count < 0 for count in counts):
        return _bad("has run lengths that are not numbers from 0")
    if sum(counts) != width * height:
        return _bad(f"has run lengths of {sum(counts):,} pixels in all, but the picture has {width * height:,}")
    if not any(counts[1::2]):
        return _bad("has run lengths without any pixel of the object")
    return Mask("run lengths", extent=_extent(counts, height))


def _bad(fault: str) -> Mask:
    return Mask("run lengths", fault)


def _extent(counts: list[int], height: int) -> Box:
    """Return the box around the second, fourth, … run; the runs go down the columns."""
    ends = list(accumulate(counts))
    runs = [(ends[k] - counts[k], ends[k] - 1) for k in range(1, len(counts), 2) if counts[k]]  # first and last pixel
    across = runs[0][0] // height, runs[-1][1] // height + 1
    if any(first // height != last // height for first, last in runs):
        return across[0], 0, across[1], height
    return across[0], min(first % height for first, _ in runs), across[1], max(last % height for _, last in runs) + 1


def _uncompressed(text: bytes) -> Iterable[int]:
    """Yield the run lengths in a compressed text of pycocotools (`rleFrString` in common/maskApi.c)."""
    found: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            digit = text[place] - 48
            if not 0 <= digit < 64:
                raise IndexError
            value |= (digit & 31) << shift
            more, place, shift = bool(digit & 32), place + 1, shift + 5
            if not more and digit & 16:
                value |= -1 << shift
        found.append(value + (found[-2] if len(found) > 2 else 0))
        yield found[-1]


def look_at_keypoints(raw: bytes, number: int) -> tuple[str, int, Box | None]:
    """Return what is wrong with "keypoints" ("" for nothing), how many are labelled (v > 0), and the box around these."""
    values = None if raw in NOTHING else ANYTHING.decode(raw)
    wanted = f"{number} × (x, y, v)"
    if values is None:
        return f"has no keypoints ({wanted})", 0, None
    if not isinstance(values, list) or len(values) != 3 * number:
        return f"has keypoints that are not {wanted}", 0, None
    numbers = all(type(value) in (int, float) and abs(value) < HUGE for value in values)
    if not numbers or any(v not in (0, 1, 2) for v in values[2::3]):
        return f"has keypoints that are not {wanted} in numbers, with v 0, 1 or 2", 0, None
    points = [(x, y) for x, y, v in zip(values[::3], values[1::3], values[2::3], strict=True) if v > 0]
    if not points:
        return "", 0, None
    across, down = zip(*points, strict=True)
    return "", len(points), (min(across), min(down), max(across), max(down))
