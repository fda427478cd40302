"""Check annotation files of COCO's format (also LVIS): everything that Detectron2 and pycocotools will read of them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pixbench.progress import counting
from transfer.datasets.boxes import check_place
from transfer.datasets.classes import Classes, plain
from transfer.datasets.coco_file import Content, Entry, Image, decode, fit
from transfer.datasets.parallel import check_all
from transfer.datasets.pictures import Wanted, check_pictures
from transfer.datasets.report import Report
from transfer.datasets.segments import LEAST, apart, look_at_keypoints, look_at_mask, overlap

FIX = "correct it"
KEYPOINTS = 17
MANY = 10
"""Crowds are many if more than one in so many annotations is one; in COCO it is one in 100."""
THIN = 1000
"""The least area of an object is this part of its box."""
LVIS_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
LVIS = 1203
"""Number of categories of LVIS v1."""


@dataclass(frozen=True)
class Reads:
    """What a protocol reads of the file."""

    classes: Classes | None
    """None for LVIS, whose categories have the ids from 1 to `LVIS`."""
    masks: bool = True
    keypoints: bool = False
    lvis: bool = False
    split: str = "train"


class Checker:
    """One pass over a file. ``pictures`` maps an entry of "images" to the path of its picture."""

    def __init__(self, path: Path, pictures: Callable[[Image], Path], reads: Reads) -> None:
        self.path, self.pictures, self.reads = path, pictures, reads
        self.report = Report()
        self.sizes: dict[Any, tuple[int, int] | None] = {}
        self.categories: set[Any] = set()
        self.things: set[int] = set()
        self.found: set[int | None] = set()

    def problem(self, kind: str, place: str, what: str, remedy: str = FIX, taken: str = "", rare: int = 1000) -> None:
        """Record a problem of this file; ``place`` says where in it."""
        self.report.problem(kind, f"{self.path}: {place}" if place else str(self.path), what, remedy, taken, rare)

    def note(self, kind: str, place: str, what: str) -> None:
        """Record how something unusual is read."""
        self.report.note(kind, f"{self.path}: {place}", what)

    def check(self) -> Report:
        """Return all problems and notes."""
        content = self.read()
        if content is None:
            return self.report
        self.check_categories(content.categories)
        wanted = list(self.check_images(content.images))
        self.check_annotations(content.annotations)
        if not self.report.counts["usable"] and not self.report.faults:
            self.say_nothing_there(len(content.annotations))
        if not self.report.faults:
            absent = [category for category in content.categories if category["id"] not in self.found]
            self.report.facts["absent"] = [category["name"] for category in absent]
        named = [image.coco_url if self.reads.lvis else image.file_name for image in content.images]
        self.report.facts["names"] = [name for name in named if isinstance(name, str)]
        if (crowds := self.report.counts["crowds"]) * MANY > len(content.annotations):
            what = "crowd (iscrowd 1), which is neither learned nor measured"
            self.report.note("crowds", str(self.path), what, crowds)
        self.report.settle(self.report.counts["annotations"])
        self.report.merge(check_all(check_pictures, wanted, f"pictures of {self.path.name}"))
        return self.report

    def say_nothing_there(self, annotations: int) -> None:
        """Report that there is nothing to learn or to measure."""
        verb = "measure" if self.reads.split == "test" else "learn"
        if annotations and self.report.counts["crowds"] == annotations:
            what = f"has nothing to {verb}: all {annotations} annotations are crowds"
            self.problem("no annotations", "", what, "write iscrowd 0 where an annotation is a single object")
        elif annotations and self.reads.keypoints:
            what = f"has nothing to {verb}: no keypoint is labelled in its {annotations} annotations"
            self.problem("no annotations", "", what, "label keypoints (v 1 or 2)")
        else:
            self.problem("no annotations", "", f"has no annotation to {verb}", "add the annotations of its pictures")

    def read(self) -> Content | None:
        """Decode the file; None if it is not an annotation file."""
        try:
            return decode(self.path)
        except FileNotFoundError:
            self.problem("file", "", "is missing", "unpack or export it again")
        except UnicodeDecodeError as error:
            self.problem("file", "", f"is not a text in UTF-8 ({error.reason})", "save it again")
        except (msgspec.MsgspecError, ValueError) as error:
            what = f"is not a complete annotation file of COCO's format ({error})"
            self.problem("file", "", what, "unpack or export it again")
        return None

    def check_categories(self, found: list[Any]) -> None:
        """Compare the categories with the classes of the run."""
        names: dict[str, Any] = {}
        for number, category in enumerate(found):
            id_, name = (category.get(key) for key in ("id", "name")) if isinstance(category, dict) else (None, None)
            place = f"category {number + 1}"
            if type(id_) is not int or not isinstance(name, str) or not name.strip():
                self.problem("category", place, f"has no whole number as id or no name ({category!r})"[:200])
            elif id_ in self.categories:
                self.problem("category twice", place, f"has the id {id_} of another category", "give each its own id")
            elif name in names:
                self.problem(
                    "category name", place, f"has the name {name!r} of another category", "give each its own name"
                )
            elif self.reads.lvis and category.get("frequency") not in ("r", "c", "f"):
                self.problem("frequency", place, "has no frequency (r, c or f), which the evaluation needs")
            else:
                names[name] = id_
                self.categories.add(id_)
        if not self.report.faults:
            self.compare_categories(names)
        if not self.report.faults and not self.reads.lvis:
            self.report.facts["ids"] = {plain(name): id_ for name, id_ in names.items()}

    def compare_categories(self, names: dict[str, int]) -> None:
        """Report categories that are not the classes of the run. LVIS and keypoints have none of a user's own."""
        classes, mine = self.reads.classes, {id_: name for name, id_ in names.items()}
        if classes is None:
            if mine.keys() != set(range(1, LVIS + 1)):
                self.problem(
                    "categories", "", f"its categories are not the {LVIS:,} of LVIS v1", "use LVIS's files, version 1"
                )
            return
        wanted: dict[Any, str] = dict(zip(classes.ids, classes.names, strict=True)) if classes.ids else {}
        if wanted:
            strange = [f"{name} (id {i})" for i, name in mine.items() if plain(wanted.get(i, "")) != plain(name)]
            lacking = [f"{name} (id {i})" for i, name in wanted.items() if plain(mine.get(i, "")) != plain(name)]
        else:  # a text file says nothing about ids
            strange = [name for name in names if classes.find(name) is None]
            lacking = [name for name in classes.names if plain(name) not in set(map(plain, names))]
        if strange or lacking:
            differ = [f"it {verb} {_few(items)}" for verb, items in (("has", strange), ("lacks", lacking)) if items]
            remedy = f"to run on the categories of this file, add --classes {self.path}"
            if classes.own:
                remedy = (
                    "give the files for training and testing the same categories, with the same ids, and name them all"
                )
            elif self.reads.keypoints:
                remedy = "use the published category"
            what = f"its categories are not the {classes.brief} of {classes.source}: {'; '.join(differ)}"
            self.problem("categories", "", what, remedy)

    def check_images(self, images: list[Image]) -> Iterator[Wanted]:
        """Check all entries of "images" and yield the pictures that they name."""
        files: dict[Path, Any] = {}
        kinds = {type(image.id) for image in images}
        if len(kinds) > 1 and kinds <= {int, str}:
            self.problem("ids mixed", "images", "some ids are numbers and others are text", "use one kind")
        for number, image in enumerate(images, 1):
            place = f"image {image.id!r}" if image.id is not None else f"entry {number} of images"
            if type(image.id) not in (int, str):
                self.problem("image id", place, "has no id (a whole number)")
                continue
            if type(image.id) is int and abs(image.id) >= 1 << 63:
                what = "its id is too large for pycocotools (2^63 or more), which would not find it"
                self.problem("image id large", place, what, "number the images, for example from 1")
                continue
            if image.id in self.sizes:
                self.problem("image twice", place, "the id of another image too", "give each image its own id")
                continue
            self.sizes[image.id] = None
            named = image.coco_url if self.reads.lvis else image.file_name
            if not isinstance(named, str) or not named.strip() or "\0" in named:
                self.problem("file name", place, f"has no {'coco_url' if self.reads.lvis else 'file_name'}")
                continue
            size = image.width, image.height
            if not all(type(value) is int and value > 0 for value in size):
                said = " × ".join("nothing" if value is None else str(value) for value in size)
                self.problem("image size", place, f"width and height are {said}, not whole numbers above 0")
                continue
            if self.reads.lvis and not all(isinstance(getattr(image, key), list) for key in LVIS_LISTS):
                self.problem("lists", place, f"has no {' or '.join(LVIS_LISTS)}, which the evaluation needs")
            path = self.pictures(image)
            if path in files:
                what = f"has the picture of image {files[path]!r} ({image.file_name})"
                self.problem("picture twice", place, what, "merge the two, or delete one")
                continue
            files[path], self.sizes[image.id] = image.id, size
            slash = ", with \\ in place of /" if "\\" in named else ""
            yield Wanted(path, *size, f"{self.path.name} (image {image.id!r}{slash})")
        if not images:
            self.problem("no images", "", "lists no image", "add the images")

    def check_annotations(self, entries: list[Entry]) -> None:
        """Check all entries of "annotations"."""
        ids: set[Any] = set()
        with counting(len(entries), self.path.name, "annotations") as count:
            for number, entry in enumerate(entries, 1):
                if number % 1000 == 0:
                    count(1000)
                place = f"annotation {entry.id!r}" if entry.id is not None else f"entry {number} of annotations"
                if type(entry.id) not in (int, str):
                    self.problem("annotation id", place, "has no id (a whole number)", "number the annotations")
                elif entry.id in ids:
                    self.problem(
                        "annotation ids", place, "its id is not unique in this file", "give each annotation its own id"
                    )
                elif not fit(entry.id):
                    what = "annotation id that pycocotools cannot use (a whole number from 1), numbered anew"
                    self.note("annotation numbers", place, what)
                ids.add(entry.id if isinstance(entry.id, int | str) else None)
                self.check_annotation(entry, place)

    def check_annotation(self, entry: Entry, place: str) -> None:
        """Check one annotation."""
        self.report.counts["annotations"] += 1
        known = isinstance(entry.image_id, int | str) and entry.image_id in self.sizes
        if not known:
            self.problem(
                "image_id", place, f"its image_id {entry.image_id!r} is not in images", "add the image or correct it"
            )
        if type(entry.category_id) is not int or entry.category_id not in self.categories:
            self.problem("category_id", place, f"its category_id {entry.category_id!r} is not in categories")
        if entry.ignore not in (None, 0, False):
            self.problem("ignore", place, f'"ignore" is {entry.ignore!r}, which neither framework reads', "use iscrowd")
        crowd = self.crowd(entry, place)
        self.report.counts["crowds"] += crowd
        size = self.sizes.get(entry.image_id) if known else None
        good = self.box(entry, size, place)
        if good and size and not crowd:
            self.twins(entry, place)
        if size:
            self.mask(entry, size, place, crowd, good)
        labelled = self.keypoints(entry, place, crowd, good) if self.reads.keypoints else 1
        self.area(entry, place, good and not crowd)
        if good and labelled and not crowd:
            self.report.counts["usable"] += 1
            self.found.add(entry.category_id if isinstance(entry.category_id, int) else None)

    def mask(self, entry: Entry, size: tuple[int, int], place: str, crowd: bool, boxed: bool) -> None:
        """Check the mask. Detectron2 reads it even if the protocol does not need it."""
        found, lvis = look_at_mask(bytes(entry.segmentation), size), self.reads.lvis
        if found.kind == "none":
            if self.reads.masks:
                remedy = "add it, or choose a protocol that needs boxes only: coco_retinanet_1x or coco_fcos_1x"
                self.problem("no mask", place, "has no segmentation", remedy)
        elif found.skipped and not lvis and (found.extent or self.reads.split == "train"):
            self.problem("polygons", place, f"its segmentation {found.fault}", FIX, "such polygons are left out")
        elif found.fault:
            self.problem("mask", place, f"its segmentation {found.fault}")
        elif found.kind == "run lengths" and lvis:
            self.problem("run lengths", place, "its segmentation is not a list of polygons, as LVIS has", FIX)
        elif not crowd:
            self.report.counts["run lengths"] += found.kind == "run lengths"
            if (
                found.extent
                and boxed
                and min(entry.bbox[2:]) > 0
                and overlap(found.extent, _corners(entry.bbox)) < LEAST
            ):
                what = f"bbox {entry.bbox} (x, y, width, height) does not fit its {found.kind}, which reach from "
                reach = f"{found.extent[:2]} to {found.extent[2:]}"
                self.problem("mask and box", place, what + reach, FIX, "taken as it is")

    def twins(self, entry: Entry, place: str) -> None:
        """Report an object that is there twice."""
        about = hash((entry.image_id, repr(entry.category_id), *entry.bbox))
        if about in self.things:
            what = "has the class and the box of another annotation of its image"
            self.problem("object twice", place, what, "delete one of them", "both are counted", rare=100)
        self.things.add(about)

    def keypoints(self, entry: Entry, place: str, crowd: bool, boxed: bool) -> int:
        """Check the keypoints; return how many are labelled. A crowd may have none."""
        if crowd and bytes(entry.keypoints) in (b"", b"[]"):
            if not entry.keypoints:
                self.note("crowd keypoints", place, "crowd without keypoints, taken as none labelled")
            return 0
        fault, labelled, extent = look_at_keypoints(bytes(entry.keypoints), KEYPOINTS)
        if fault:
            self.problem("keypoints", place, fault)
            return labelled
        if boxed and extent and apart(extent, _corners(entry.bbox)):
            what = f"its keypoints reach from {extent[:2]} to {extent[2:]}, outside bbox {entry.bbox} (x, y, width, height)"
            self.problem("keypoints and box", place, what, FIX, "taken as they are")
        if entry.num_keypoints is None:
            self.note("num_keypoints", place, "annotation without num_keypoints, taken from its keypoints")
        elif type(entry.num_keypoints) is not int or entry.num_keypoints != labelled:
            what = f"num_keypoints is {entry.num_keypoints!r}, but {labelled} keypoints are labelled"
            self.problem("num_keypoints", place, what, FIX, "taken as it is")
        return labelled

    def crowd(self, entry: Entry, place: str) -> bool:
        """Return whether the annotation is a crowd."""
        if entry.iscrowd is None:
            if not self.reads.lvis:
                self.note("iscrowd", place, "annotation without iscrowd, taken as 0")
        elif type(entry.iscrowd) not in (int, bool, float) or entry.iscrowd not in (0, 1):
            self.problem("iscrowd", place, f"iscrowd is {entry.iscrowd!r}", "write 0 or 1")
        elif type(entry.iscrowd) is not int:
            self.note("iscrowd type", place, f"iscrowd {json.dumps(entry.iscrowd)}, taken as {int(entry.iscrowd)}")
        return entry.iscrowd in (1, True)

    def area(self, entry: Entry, place: str, boxed: bool) -> None:
        """Check the area, which the evaluation needs for small, medium and large, and for keypoints."""
        if entry.area is None:
            self.note("area", place, "annotation without area, taken from its mask or box")
        elif type(entry.area) not in (int, float) or not 0 <= entry.area < math.inf:
            self.problem("area", place, f"area is {entry.area!r}, not a number of pixels")
        elif boxed and min(entry.bbox[2:]) > 0:
            width, height = entry.bbox[2:]
            if not width * height / THIN <= entry.area <= (width + 2) * (height + 2):
                what = f"area {entry.area} does not fit its bbox of {width} × {height} (width × height)"
                self.problem("area and box", place, what, "write the number of pixels of the mask", "taken as it is")

    def box(self, entry: Entry, size: tuple[int, int] | None, place: str) -> bool:
        """Check the box; return whether it is four numbers."""
        box = entry.bbox
        if not isinstance(box, list) or len(box) != 4 or any(type(value) not in (int, float) for value in box):
            self.problem(
                "bbox", place, f"bbox is {'missing' if box is None else repr(box)[:80]}, not [x, y, width, height]"
            )
            return False
        x, y, width, height = box
        if width < 0 or height < 0:
            self.problem("bbox sign", place, f"bbox {box} has a width or height below 0", "write [x, y, width, height]")
        elif width == 0 or height == 0:
            self.problem(
                "bbox empty", place, f"bbox {box} has no width or no height", FIX, "Detectron2 does not train on it"
            )
        elif size:
            where = f"{self.path}: {place}"
            check_place((x, y, x + width, y + height), size, where, f"{box} (x, y, width, height)", self.report)
        return True


def _few(items: list[str]) -> str:
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


def _corners(box: list[float]) -> tuple[float, float, float, float]:
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


def check(path: Path, pictures: Callable[[Image], Path], reads: Reads) -> Report:
    """Check the annotation file ``path`` and its pictures for what a protocol reads."""
    return Checker(path, pictures, reads).check()
