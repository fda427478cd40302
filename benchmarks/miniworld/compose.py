"""Compose a world from photographs: cut-outs of objects, in class folders, on pictures of places.

A class folder named as a category of COCO or a class of VOC has its number there. If others are among them, VOC's and
COCO's parts have their own class lists (`classes.txt`, `classes_masks.txt`), which the protocols read with `--classes`.
The parts of Cityscapes and ADE20K are written if Cityscapes has at least one of the classes; what is behind the objects
has no label there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.miniworld import coco
from benchmarks.miniworld.ade20k import THINGS
from benchmarks.miniworld.generate import LEAST, WRITERS, World
from benchmarks.miniworld.photographs import Photographs, check_cutout, opened
from benchmarks.miniworld.scene import Drawing, ObjectClass
from pixbench.errors import UserError, listed
from pixbench.files import sha256
from pretrain.data.folders import SUFFIXES, class_names, image_files, loose_images
from transfer.datasets.classes import names_in, plain

COCO_NAMES = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle"}
COCO_NAMES |= {"pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}
"""Classes of VOC that have another name in COCO."""
MOST = 254
"""Classes that fit into masks of 8 bit, where 0 is the background and 255 is ignored."""
LONGEST = 200
"""Bytes of a class name; files of VOC are called after classes."""


@dataclass(frozen=True)
class PhotoWorld(World):
    """Settings that determine every byte of a world from photographs."""

    name: str = "photographs"
    cutouts: Path = Path()
    """Folder with a folder of pictures for each class; they have transparent pixels around an object."""
    backgrounds: Path = Path()
    """Folder with pictures of places, or with folders of them."""

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """The cut-outs of each class."""
        return {name: pictures(self.cutouts / name) for name in class_names(self.cutouts, "--cutouts")}

    @cached_property
    def places(self) -> list[Path]:
        """The pictures of places. They are listed once: workers must not see what is written meanwhile."""
        return pictures(self.backgrounds)

    @property
    def classes(self) -> list[ObjectClass]:
        """The object classes, in the order of their folders."""
        return object_classes(list(self.files))

    @property
    def least(self) -> int:
        """Smallest number of scenes in each split: each class is in it."""
        return max(LEAST, len(self.files))

    def writers(self) -> dict[str, Any]:
        """Return what writes the data sets."""
        street = any(found.name in THINGS for found in self.classes)
        return {name: writer for name, writer in WRITERS.items() if street or name not in ("cityscapes", "ade20k")}

    def stamp(self) -> dict[str, Any]:
        """Return the content of `MINI_WORLD_FILE`, with digests of the pictures."""
        cutouts = digest(self.cutouts, (path for paths in self.files.values() for path in paths))
        backgrounds = digest(self.backgrounds, self.places)
        stamp = super().stamp() | {"made_by": "pixbench data compose"}
        return stamp | {"cutouts": cutouts, "backgrounds": backgrounds}

    def drawing(self) -> Drawing:
        """Return how its scenes are drawn."""
        return Photographs(self.classes, self.files, self.places)

    def check(self, root: Path) -> None:
        """Raise UserError if a folder has no pictures, a cut-out is not one, or ``root`` lies in a folder of pictures."""
        for option, folder in (("--cutouts", self.cutouts), ("--backgrounds", self.backgrounds)):
            if root.resolve().is_relative_to(folder.resolve()):
                raise UserError(
                    f"--root {root} is inside {option} {folder}, so the world would be made of its own pictures; choose a "
                    "folder outside"
                )
        if not self.files:
            raise UserError(
                f"--cutouts {self.cutouts} has no class folders; make one folder of cut-outs for each class"
            )
        if loose := loose_images(self.cutouts):
            raise UserError(
                f"--cutouts {self.cutouts} has pictures beside its class folders ({listed(loose[:3])}), and their class is not "
                "known; move them into a class folder, or elsewhere"
            )
        check_names(list(self.files), self.cutouts)
        for path in (path for paths in self.files.values() for path in paths):
            check_cutout(path)
        for path in self.places:
            opened(path)


def pictures(folder: Path) -> list[Path]:
    """Return the pictures in ``folder`` and the folders below, in the order of their names.

    Raises:
        UserError: There are none.
    """
    found = sorted(folder / name for name in image_files(folder))
    if not found:
        raise UserError(f"{folder} has no pictures ({', '.join(SUFFIXES)}); add some or choose another folder")
    return found


def check_names(names: Sequence[str], folder: Path) -> None:
    """Raise UserError if the class folders ``names`` in ``folder`` cannot be the classes of every layout."""
    if len(names) > MOST:
        raise UserError(
            f"--cutouts {folder} has {len(names)} class folders, and masks in the layout of VOC have room for {MOST} classes; "
            "leave some out"
        )
    seen = {"background": "background"}  # of VOC's masks
    for name in names:
        try:
            fits = names_in(name.encode(), folder) == (name,) and len(name.encode()) <= LONGEST
        except (UserError, UnicodeEncodeError):
            fits = False
        if not fits:
            raise UserError(f"{folder / name}: {name!r} cannot be the name of a class in a list; rename this folder")
        if (other := seen.setdefault(plain(name), name)) != name or name == "background":
            raise UserError(
                f"--cutouts {folder}: the class {name!r} is the same as {other!r} in lists of classes (capitals, blanks, - and _ "
                "do not count; background is what has no class); rename or remove one"
            )


def digest(folder: Path, paths: Iterable[Path]) -> str:
    """Return a digest of the pictures in ``folder`` and their places in it."""
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def object_classes(folders: Sequence[str]) -> list[ObjectClass]:
    """Return the object classes of class folders. If all are categories of COCO, they have its numbers."""
    names = [COCO_NAMES.get(folder, folder).replace("_", " ") for folder in folders]
    voc_names = {name: label for label, name in COCO_NAMES.items()}
    numbers = {entry["name"]: entry["id"] for entry in coco.categories()}
    if not set(names) <= set(numbers) or len(set(names)) < len(names):
        names, numbers = list(folders), {folder: number for number, folder in enumerate(folders, 1)}
    return [
        ObjectClass(name, voc_names.get(name, name), numbers[name], folder)
        for folder, name in zip(folders, names, strict=True)
    ]
