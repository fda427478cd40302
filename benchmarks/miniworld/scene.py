"""What all worlds share: a scene of solid things with pixel-exact masks, and how a world draws its scenes.

Each solid thing is one polygon with whole-number corners, filled by Pillow's `ImageDraw.polygon` from back to front. A
mask contains the pixels that this call fills, so a reader that draws the polygons again with Pillow (as
`cityscapesscripts` does) gets the same pixels. H × W is the size of the scene in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Polygon = list[list[int]]
MIN_VISIBLE = 0.45  # smallest fraction of an object's pixels that must stay uncovered
MIN_INSIDE = 0.65  # smallest fraction of an object's area that must be inside the frame


@dataclass(frozen=True, eq=False)
class ObjectClass:
    """Names of an object class in the data sets."""

    name: str
    """Name in COCO and Cityscapes."""
    voc: str
    coco: int
    """COCO category id."""
    synset: str
    """ImageNet folder: a similar class of ILSVRC 2012."""


@dataclass
class Layer:
    """A solid thing in the scene."""

    label: str
    """Name of the object class, or a label of Cityscapes."""
    polygon: Polygon
    visible: Mask
    """(H, W) its pixels that no later layer covers."""


@dataclass
class Thing(Layer):
    """An object of one of the object classes."""

    whole: Mask
    """(H, W) all its pixels in the frame, covered or not."""
    object_class: ObjectClass
    crowd: bool
    """Whether it belongs to a crowd, which is annotated as a whole."""
    truncated: bool
    """Whether it extends beyond the frame."""

    @property
    def covered(self) -> float:
        """Fraction of its pixels that other layers cover."""
        return 1 - float(self.visible.sum() / self.whole.sum())


@dataclass
class Scene:
    """The image of a scene and the layers in it."""

    image: Array
    """(H, W, 3) float32; `pixels` returns it as uint8."""
    layers: list[Layer] = field(default_factory=list)
    """From back to front."""

    @property
    def objects(self) -> list[Thing]:
        """Objects that do not belong to a crowd."""
        return [layer for layer in self.layers if isinstance(layer, Thing) and not layer.crowd]

    @property
    def crowd(self) -> list[Thing]:
        """Visible members of the crowd (a scene has at most one crowd)."""
        return [layer for layer in self.layers if isinstance(layer, Thing) and layer.crowd and layer.visible.any()]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The image (H, W, 3) as uint8."""
        return np.clip(self.image, 0, 255).astype(np.uint8)

    def fill(self, polygon: Polygon) -> Mask:
        """Return the mask (H, W) of the pixels that Pillow fills for ``polygon``."""
        return self.fill_all([polygon]).astype(bool)

    def fill_all(self, polygons: list[Polygon]) -> NDArray[np.uint8]:
        """Return (H, W) for each pixel the number of the last polygon, counted from 1, that Pillow fills there, or 0."""
        height, width = self.image.shape[:2]
        sheet = Image.new("L", (width, height))
        draw = ImageDraw.Draw(sheet)
        for number, polygon in enumerate(polygons, 1):
            draw.polygon([tuple(point) for point in polygon], fill=number)
        return np.asarray(sheet)

    def would_hide(self, mask: Mask) -> bool:
        """Whether too little of an existing object would remain visible if ``mask`` were covered."""
        return any((o.visible & ~mask).sum() < MIN_VISIBLE * o.whole.sum() for o in self.objects)

    def cover(self, layer: Layer) -> None:
        """Put ``layer`` on top of the scene."""
        for below in self.layers:
            below.visible &= ~layer.visible
        self.layers.append(layer)


def window(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns of the bounding box of ``mask``, which must not be empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


class Drawing(Protocol):
    """How a world draws its scenes. All randomness is from ``rng``; ``number`` chooses the class of one object."""

    @property
    def classes(self) -> Sequence[ObjectClass]:
        """The object classes of the world."""

    def portrait(self, rng: np.random.Generator, number: int, width: int, height: int) -> Scene:
        """Draw a scene with one large object."""

    def scene(self, rng: np.random.Generator, number: int, width: int, height: int, count: int, crowd: bool) -> Scene:
        """Draw a scene with up to ``count`` objects of all classes; with ``crowd``, there is a crowd too."""

    def street(self, rng: np.random.Generator, number: int, width: int, height: int, count: int, crowd: bool) -> Scene:
        """Draw a scene with up to ``count`` objects of Cityscapes' classes, in which each pixel belongs to a layer."""
