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
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.miniworld import coco
from benchmarks.miniworld.ade20k import THINGS
from benchmarks.miniworld.cutout import LARGEST, Cutout, areas_of, paste
from benchmarks.miniworld.generate import LEAST, WRITERS, World
from benchmarks.miniworld.scene import Array, Drawing, Layer, ObjectClass, Scene
from pixbench.errors import UserError, explain
from pixbench.files import sha256
from pretrain.data.folders import SUFFIXES, class_names, is_left_out

TURN = 8  # largest rotation of a cut-out in degrees
TRIES = 12
KEPT = 64  # pictures that a process keeps in memory
SIDE = 512  # pixels of the longer side of a picture that is kept
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
    def least(self) -> int:
        """Smallest number of scenes in each split: each class is in it."""
        return max(LEAST, len(self.files))

    def writers(self) -> dict[str, Any]:
        """Return what writes the data sets."""
        street = any(found.name in THINGS for found in object_classes(list(self.files)))
        return {name: writer for name, writer in WRITERS.items() if street or name not in ("cityscapes", "ade20k")}

    def stamp(self) -> dict[str, Any]:
        """Return the content of `MINI_WORLD_FILE`, with digests of the pictures."""
        cutouts = digest(path for paths in self.files.values() for path in paths)
        backgrounds = digest(pictures(self.backgrounds))
        stamp = super().stamp() | {"made_by": "pixbench data compose"}
        return stamp | {"cutouts": cutouts, "backgrounds": backgrounds}

    def drawing(self) -> Drawing:
        """Return how its scenes are drawn."""
        return Photographs(self.files, pictures(self.backgrounds))

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


def digest(paths: Iterable[Path]) -> str:
    """Return a digest of the pictures with their folders."""
    lines = [f"{path.parent.name}/{path.name} {sha256(path)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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


@lru_cache(KEPT)
def opened(path: Path) -> Image.Image:
    """Return a picture, reduced to at most `SIDE` pixels.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with Image.open(path) as file:
            picture = file.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture ({explain(error)}); replace or remove it") from None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return picture


def cutout_of(path: Path) -> Image.Image:
    """Return a cut-out without the transparent margin.

    Raises:
        UserError: It is no cut-out.
    """
    picture = opened(path)
    opacity = np.asarray(picture)[..., 3]
    box = Image.fromarray(opacity & 128).getbbox()
    if box is None or opacity.min() >= 128:
        what = "is transparent everywhere" if box is None else "has no transparent pixels"
        raise UserError(f"{path} {what}: it is no cut-out of an object; replace or remove it")
    return picture.crop(box)


class Photographs:
    """The drawing of a world from photographs.

    Args:
        cutouts: the pictures of each class, by the name of its folder.
        backgrounds: the pictures of places.
    """

    def __init__(self, cutouts: dict[str, list[Path]], backgrounds: list[Path]) -> None:
        self.classes = object_classes(list(cutouts))
        self.of_streets = [found for found in self.classes if found.name in THINGS]
        self.cutouts, self.backgrounds = cutouts, backgrounds

    def portrait(self, rng: np.random.Generator, number: int, width: int, height: int) -> Scene:
        """Draw one large object."""
        return self._draw(rng, number, self.classes, width, height, 1, False)

    def scene(self, rng: np.random.Generator, number: int, width: int, height: int, count: int, crowd: bool) -> Scene:
        """Draw up to ``count`` objects."""
        return self._draw(rng, number, self.classes, width, height, count, crowd)

    def street(self, rng: np.random.Generator, number: int, width: int, height: int, count: int, crowd: bool) -> Scene:
        """Draw up to ``count`` objects of Cityscapes' classes; what is behind them has its label `static`."""
        return self._draw(rng, number, self.of_streets, width, height, count, crowd)

    def _draw(
        self,
        rng: np.random.Generator,
        number: int,
        among: list[ObjectClass],
        width: int,
        height: int,
        count: int,
        crowd: bool,
    ) -> Scene:
        scene = Scene(background(rng, self.backgrounds, width, height))
        frame = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
        scene.cover(Layer("static", frame, scene.fill(frame)))
        if crowd:
            members, middle = among[rng.integers(len(among))], rng.uniform(0.3, 0.7, 2)
            for _ in range(6):
                self._add(scene, rng, members, rng.uniform(150, 350), middle, 0.15, crowd=True)
        areas = areas_of(rng, count, width * height)
        first = rng.integers(count)
        for position, pixels in enumerate(areas):
            chosen = among[(number if position == first else rng.integers(len(among))) % len(among)]
            for _ in range(20 if position == first else 2):
                if self._add(scene, rng, chosen, float(pixels), np.array([0.5, 0.5]), 0.45):
                    break
                pixels *= 0.75
        return scene

    def _add(
        self,
        scene: Scene,
        rng: np.random.Generator,
        chosen: ObjectClass,
        pixels: float,
        middle: NDArray[np.float64],
        reach: float,
        crowd: bool = False,
    ) -> bool:
        """Put an object that covers about so many ``pixels`` at most ``reach`` of the frame from ``middle``, if it fits."""
        height, width = scene.image.shape[:2]
        files = self.cutouts[chosen.synset]
        cutout = posed(rng, cutout_of(files[rng.integers(len(files))]), pixels, width, height)
        rows, columns = cutout.opacity.shape
        for _ in range(TRIES):
            x, y = (middle + rng.uniform(-reach, reach, 2)) * [width, height]
            if paste(scene, cutout, int(x - columns / 2), int(y - rows / 2), chosen, crowd):
                return True
        return False


def posed(rng: np.random.Generator, picture: Image.Image, pixels: float, width: int, height: int) -> Cutout:
    """Return a cut-out in a random pose, so large that it covers about ``pixels`` pixels of a frame."""
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(float(rng.uniform(-TURN, TURN)), Image.Resampling.BILINEAR, expand=True)
    rgba = np.asarray(picture).astype(np.float32)
    rgba[..., :3] *= rgba[..., 3:] * np.float32(rng.uniform(0.8, 1.15) / 255)
    covered = max(1.0, float(rgba[..., 3].sum()) / 255)
    scale = min(np.sqrt(pixels / covered), LARGEST * width / rgba.shape[1], LARGEST * height / rgba.shape[0])
    size = (max(4, round(rgba.shape[1] * scale)), max(4, round(rgba.shape[0] * scale)))
    sized = cv2.resize(rgba, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return Cutout(sized[..., :3].astype(np.float32), np.rint(sized[..., 3]).astype(np.uint8))


def background(rng: np.random.Generator, files: list[Path], width: int, height: int) -> Array:
    """Return a random part (height, width, 3) of one of the pictures ``files``."""
    picture = opened(files[rng.integers(len(files))]).convert("RGB")
    wide = min(picture.width, picture.height * width / height) * rng.uniform(0.5, 1)
    tall = wide * height / width
    left, top = rng.random(2) * [picture.width - wide, picture.height - tall]
    box = (float(left), float(top), float(left + wide), float(top + tall))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box)).astype(np.float32)
