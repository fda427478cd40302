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
from benchmarks.miniworld.photographs import Photographs, cutout_of, opened
from benchmarks.miniworld.scene import Drawing, ObjectClass
from pixbench.errors import UserError
from pixbench.files import sha256
from pretrain.data.folders import SUFFIXES, class_names, is_left_out

COCO_NAMES = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle"}
COCO_NAMES |= {"pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}
"""Classes of VOC that have another name in COCO."""


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
        backgrounds = digest(self.backgrounds, pictures(self.backgrounds))
        stamp = super().stamp() | {"made_by": "pixbench data compose"}
        return stamp | {"cutouts": cutouts, "backgrounds": backgrounds}

    def drawing(self) -> Drawing:
        """Return how its scenes are drawn."""
        return Photographs(self.classes, self.files, pictures(self.backgrounds))

    def check(self) -> None:
        """Raise UserError if a folder has no pictures, or a cut-out is not one."""
        if not self.files:
            raise UserError(
                f"--cutouts {self.cutouts} has no class folders; make one folder of cut-outs for each class"
            )
        for path in (path for paths in self.files.values() for path in paths):
            cutout_of(path)
        for path in pictures(self.backgrounds):
            opened(path)


def pictures(folder: Path) -> list[Path]:
    """Return the pictures in ``folder`` and the folders below, in the order of their names.

    Raises:
        UserError: There are none.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(is_left_out(part) for part in path.relative_to(folder).parts)
    )
    if not found:
        raise UserError(f"{folder} has no pictures ({', '.join(SUFFIXES)}); add some or choose another folder")
    return found


def digest(folder: Path, paths: Iterable[Path]) -> str:
    """Return a digest of the pictures in ``folder`` and their places in it."""
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


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
