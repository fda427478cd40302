"""Annotation files of COCO's format: decode them for a check, and fill in what files of other tools leave out.

A file is decoded in one pass; masks stay undecoded until they are looked at, one at a time, so that COCO's 450 MB take less than
twice their size in memory. Detectron2 and pycocotools read the same file again for training and evaluation.
"""

from __future__ import annotations

import codecs
import json
import mmap
from pathlib import Path
from typing import Any

import msgspec

from transfer.datasets.segments import is_polygon

PIECE = 1 << 22
"""Bytes of text that are decoded at a time."""


class Image(msgspec.Struct, gc=False):
    """An entry of "images"; nothing is known about the types yet."""

    id: Any = None
    file_name: Any = None
    coco_url: Any = None
    neg_category_ids: Any = None
    not_exhaustive_category_ids: Any = None
    width: Any = None
    height: Any = None


class Entry(msgspec.Struct, gc=False):
    """An entry of "annotations"; nothing is known about the types yet."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None
    ignore: Any = None
    num_keypoints: Any = None
    segmentation: msgspec.Raw = msgspec.Raw(b"")
    keypoints: msgspec.Raw = msgspec.Raw(b"")


class Content(msgspec.Struct):
    """The parts of a file that are read."""

    images: list[Image]
    annotations: list[Entry]
    categories: list[Any]


def decode(path: Path) -> Content:
    """Decode the file ``path``.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not a text in UTF-8.
        ValueError, msgspec.MsgspecError: it is not an annotation file.
    """
    if not path.stat().st_size:
        raise ValueError("it is empty")
    with path.open("rb") as stream:  # the map lives as long as the masks, which are parts of it
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    _check_text(data)
    try:
        return msgspec.json.decode(data, type=Content)
    except RecursionError:
        raise ValueError("it has lists within lists within lists, very many times") from None


def _check_text(data: mmap.mmap) -> None:
    """Raise UnicodeDecodeError if ``data`` is not UTF-8; the JSON decoder looks only at the parts that it reads."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), PIECE):
        decoder.decode(data[start : start + PIECE])
    decoder.decode(b"", final=True)


FILLED = {"iscrowd", "area", "num_keypoints", "crowd keypoints", "annotation numbers", "polygons"}
"""Kinds of notes about what `filled` adds or replaces, because pycocotools needs it."""


def fit(id_: Any) -> bool:
    """Return whether pycocotools can use the id of an annotation: 0 means "no match" there."""
    return type(id_) is int and 0 < id_ < 2**53


def filled(path: Path) -> dict[str, Any]:
    """Return the content of ``path`` with the fields `FILLED` in their usual meaning where they are missing or unusable."""
    content: dict[str, Any] = json.loads(path.read_bytes())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    people = any("keypoints" in entry for entry in content["annotations"])
    anew = not all(fit(entry["id"]) for entry in content["annotations"])
    for number, entry in enumerate(content["annotations"], 1):
        if anew:
            entry["id"] = number
        if isinstance(found := entry.get("segmentation"), list):
            entry["segmentation"] = [polygon for polygon in found if is_polygon(polygon)] or found
        if entry.get("iscrowd") is None:
            entry["iscrowd"] = 0
        if entry.get("area") is None:
            entry["area"] = _area(entry, sizes[entry["image_id"]])
        if people:
            entry.setdefault("keypoints", [])
            if entry.get("num_keypoints") is None:
                entry["num_keypoints"] = sum(value > 0 for value in entry["keypoints"][2::3])
    return content


def _area(entry: dict[str, Any], size: tuple[int, int]) -> float:
    """Return the area of the mask, or of the box if there is none. ``size`` is (height, width)."""
    from pycocotools import mask

    found = entry.get("segmentation")
    if not found:
        return float(entry["bbox"][2] * entry["bbox"][3])
    if isinstance(found, list):
        return float(mask.area(mask.merge(mask.frPyObjects(found, *size))))
    return float(mask.area(found if isinstance(found["counts"], str) else mask.frPyObjects(found, *size)))
