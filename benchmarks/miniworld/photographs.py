"""Draw scenes of cut-outs on pictures: any class may be anywhere."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.miniworld.ade20k import THINGS
from benchmarks.miniworld.cutout import LARGEST, Cutout, areas_of, paste
from benchmarks.miniworld.scene import Array, Layer, ObjectClass, Scene
from pixbench.errors import UserError, explain

TURN = 8  # largest rotation of a cut-out in degrees
TRIES = 12  # places tried for each cut-out
KEPT = 64  # pictures that a process keeps in memory
SIDE = 512  # pixels of the longer side of a picture that is kept


@lru_cache(KEPT)
def opened(path: Path) -> Image.Image:
    """Return a picture, reduced to at most `SIDE` pixels.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with Image.open(path) as file:
            mode, picture = file.mode, file.convert("RGBA")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds at a broken file
        raise UserError(f"{path} cannot be read as a picture ({explain(error)}); replace or remove it") from None
    if mode.startswith(("I", "F")):  # Pillow would clip them, to black or to white
        raise UserError(
            f"{path} has more than 8 bits in a pixel (Pillow's mode {mode}); convert it to 8 bits, or remove it"
        )
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


def check_cutout(path: Path) -> None:
    """Raise UserError if ``path`` is no cut-out, or one that cannot be put into a scene in most of its poses."""
    picture, rng, anything = cutout_of(path), np.random.default_rng(0), ObjectClass("", "", 0, "")
    side, poses = 128, 6
    placed = 0
    for _ in range(poses):
        scene = Scene(np.zeros((side, side, 3), np.float32))
        cutout = posed(rng, picture, 0.4 * side**2, side, side)
        rows, columns = cutout.opacity.shape
        placed += paste(scene, cutout, (side - columns) // 2, (side - rows) // 2, anything)
    if placed < poses / 2:
        raise UserError(
            f"{path} is too thin, or in too many small pieces, to be an object in a scene; replace or remove it"
        )


class Photographs:
    """The drawing of a world from photographs.

    Args:
        classes: the object classes; each has the name of its folder as `synset`.
        cutouts: the pictures of each class, by the name of its folder.
        backgrounds: the pictures of places.
    """

    def __init__(self, classes: list[ObjectClass], cutouts: dict[str, list[Path]], backgrounds: list[Path]) -> None:
        self.classes = classes
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
