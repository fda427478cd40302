"""Put a cut-out, an object with a soft edge, into a scene with a pixel-exact mask.

The mask of an object is its largest piece where it covers at least half of a pixel, with its holes filled: that is
one polygon, as annotators draw it. Holes show what is behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.miniworld.scene import MIN_INSIDE, Array, Layer, Mask, ObjectClass, Polygon, Scene, Thing

COVERAGE = (0.4, 0.8)
"""Range of the fraction of a scene that its objects would cover if they were whole and none of them covered another."""
LARGEST = 1.05
"""The largest width and height of an object, as a fraction of those of the scene."""


@dataclass(frozen=True)
class Cutout:
    """An object without its background."""

    colours: Array
    """(h, w, 3) float32 in 0–255, already multiplied by the opacity."""
    opacity: NDArray[np.uint8]
    """(h, w) 0 to 255."""


def paste(
    scene: Scene, cutout: Cutout, left: int, top: int, owner: ObjectClass | str, crowd: bool = False, shadow: float = 0
) -> bool:
    """Put ``cutout`` on top of ``scene``; return False and draw nothing if it would hide another object or leave the frame.

    Args:
        scene: the scene, which is changed.
        cutout: the object.
        left: column of its left edge, which may be outside.
        top: row of its upper edge.
        owner: the class of the object, or a label of Cityscapes for a thing without one.
        crowd: whether it belongs to a crowd.
        shadow: how much darker the ground below the object becomes, from 0 to 1.
    """
    height, width = scene.image.shape[:2]
    tall, wide = cutout.opacity.shape
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + wide, width), min(top + tall, height)
    if x0 >= x1 or y0 >= y1:
        return False
    inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    outline = largest(cutout.opacity[inside])
    if outline is None:
        return False
    polygon: Polygon = (outline + np.array([x0, y0])).tolist()
    mask = scene.fill(polygon)
    thing = isinstance(owner, ObjectClass)
    whole = cv2.countNonZero(cutout.opacity & 128)
    if (thing and cv2.countNonZero(cutout.opacity[inside] & 128) < MIN_INSIDE * whole) or scene.would_hide(mask):
        return False
    if shadow:
        darken(scene, left, top + tall, wide, shadow)
    patch = scene.image[y0:y1, x0:x1]
    behind = cv2.merge([cutout.opacity[inside]] * 3).astype(np.float32) * np.float32(-1 / 255) + np.float32(1)
    patch[:] = patch * behind + cutout.colours[inside]
    scene.cover(layer(owner, polygon, mask, crowd, (x0, y0, x1, y1) != (left, top, left + wide, top + tall)))
    return True


def areas_of(rng: np.random.Generator, count: int, pixels: int) -> NDArray[Any]:
    """Return the areas of the objects of a scene of so many ``pixels``, the smallest first: it is the most distant."""
    shares = np.exp(rng.normal(0, 0.6, count))
    return np.sort(shares / shares.sum() * rng.uniform(*COVERAGE) * pixels)


def layer(owner: ObjectClass | str, polygon: Polygon, mask: Mask, crowd: bool, truncated: bool) -> Layer:
    """Return the layer of an object of a class, or of a thing without one."""
    if isinstance(owner, str):
        return Layer(owner, polygon, mask)
    return Thing(owner.name, polygon, mask, mask.copy(), owner, crowd, truncated)


def largest(opacity: NDArray[np.uint8]) -> NDArray[Any] | None:
    """Return the outline (n, 2) of the largest opaque piece, through the centres of its outer pixels; None if too small."""
    contours, _ = cv2.findContours(opacity >> 7, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    best = max(contours, key=cv2.contourArea, default=None)
    return None if best is None or cv2.contourArea(best) < 16 else best[:, 0]


def darken(scene: Scene, left: int, base: int, wide: int, amount: float) -> None:
    """Lay a soft shadow on the ground below an object that is ``wide`` pixels wide and stands at ``base``."""
    height, width = scene.image.shape[:2]
    reach = max(2, wide // 10)
    top, bottom = max(0, base - 2 * reach - 4), min(height, base + 2 * reach + 4)
    if top >= bottom:
        return
    shade = np.full((bottom - top, width), 255, np.uint8)
    centre = (left + wide // 2, base - 2 - top)
    cv2.ellipse(shade, centre, (max(2, wide // 2), reach), 0, 0, 360, int(255 * (1 - amount)), -1)
    scene.image[top:bottom] *= cv2.merge([cv2.blur(shade, (9, 5))] * 3).astype(np.float32) * np.float32(1 / 255)
