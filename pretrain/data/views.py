"""Crops that know where they came from, and the batch type every method takes.

Shapes: B images in a batch, H = W = view size. A box is (x1, y1, x2, y2) in source-image coordinates, x divided by
(width − 1), y by (height − 1), and the far ends belong to the last pixel inside the crop; a mirrored view has x1 > x2
(official PixPro code, `contrast/data/transform_coord.py`).
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""


class Views(NamedTuple):
    """A batch of two views per image."""

    view1: Tensor
    """(B, 3, H, W) float32, normalised."""
    view2: Tensor
    """(B, 3, H, W) float32, normalised."""
    box1: Tensor
    """(B, 4) float32."""
    box2: Tensor
    """(B, 4) float32."""
    label: Tensor
    """(B,) int64, −1 where there is none."""
    image_index: Tensor
    """(B,) int64, position of each image in the source."""

    def chunks(self, count: int) -> list[Views]:
        """Return ``count`` batches of B / count images each."""
        return [Views(*parts) for parts in zip(*(part.chunk(count) for part in self), strict=True)]

    def to(self, device: torch.device) -> Views:
        """Return the batch on ``device``."""
        return Views(*(part.to(device, non_blocking=True) for part in self))


class Crop(NamedTuple):
    """A rectangle of whole pixels, and whether it is mirrored left-right afterwards."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


def random_crop(
    rng: random.Random, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> Crop:
    """Rectangle whose share of the image area is uniform in ``scale``, its width/height log-uniform in ``ratio``.

    After ten draws that do not fit: the largest centred rectangle with a permitted ratio.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Crop(rng.randint(0, height - h), rng.randint(0, width - w), h, w)
    return fallback_crop(width, height, ratio)


def fallback_crop(width: int, height: int, ratio: tuple[float, float] = RATIO) -> Crop:
    """The largest centred rectangle of a width × height image whose width/height lies in ``ratio``."""
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def random_flip(rng: random.Random, crop: Crop, probability: float = 0.5) -> Crop:
    """Return ``crop``, mirrored with the given ``probability``."""
    return crop._replace(mirrored=rng.random() < probability)


def box_of(crop: Crop, width: int, height: int) -> Box:
    """Box of ``crop`` in an image of width × height pixels. An image one pixel wide has x1 = x2 = 0."""
    across, down = max(width - 1, 1), max(height - 1, 1)
    x1, x2 = crop.left / across, (crop.left + crop.width - 1) / across
    y1, y2 = crop.top / down, (crop.top + crop.height - 1) / down
    if crop.mirrored:
        x1, x2 = x2, x1
    return x1, y1, x2, y2


def cut(image: Image.Image, crop: Crop, size: int) -> Image.Image:
    """The crop, resized to size × size (bilinear, antialiased) and flipped.

    Cropped before it is resized: `resize(box=...)` would let pixels outside the crop into its rim.
    """
    right, bottom = crop.left + crop.width, crop.top + crop.height
    view = image.crop((crop.left, crop.top, right, bottom)).resize((size, size), Image.Resampling.BILINEAR)
    if crop.mirrored:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return view
