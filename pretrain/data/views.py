"""Crops with their boxes, and the batch type that every method takes.

Shapes: B images in a batch, H = W = view size, L local crops of s × s pixels.

A box is (x1, y1, x2, y2) in relative coordinates of the source image, from 0
to 1: x / (width − 1) and y / (height − 1). One unit is therefore the whole width or the whole height, so a distance in these
coordinates is not in pixels if the image is not square. The right and bottom ends are the last pixels inside the crop. A
flipped view has x1 > x2 (official PixPro code, `contrast/data/transform_coord.py`).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pretrain.data.augment import Changes, Photometric
from pretrain.data.batched import change, normalised

RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""


class Views(NamedTuple):
    """A batch of two views per image."""

    view1: Tensor
    """(B, 3, H, W) float32, normalised; the loader gives uint8, see `ready`."""
    view2: Tensor
    """(B, 3, H, W), as view 1."""
    box1: Tensor
    """(B, 4) float32."""
    box2: Tensor
    """(B, 4) float32."""
    label: Tensor
    """(B,) int64, −1 for images without a label."""
    image_index: Tensor
    """(B,) int64, index of each image in the source."""

    changes: Tensor | None = None
    """(B, 2 + L, 11), changes of colour that are still to be applied to all crops; always on the CPU, see `ready`."""
    local: Tensor | None = None
    """(B, L, 3, s, s), local crops, as view 1; None if there are none."""

    def chunks(self, count: int) -> list[Views]:
        """Split the batch into ``count`` batches of B / count images each."""
        parts = [[None] * count if part is None else part.chunk(count) for part in self]
        return [Views(*part) for part in zip(*parts, strict=True)]

    def to(self, device: torch.device) -> Views:
        """Return the batch on ``device``."""
        moved = {
            name: part.to(device, non_blocking=True)
            for name, part in self._asdict().items()
            if part is not None and name != "changes"
        }
        return self._replace(**moved)

    def ready(self) -> Views:
        """Return the batch as methods take it: colours changed, if that was left to do, and uint8 images normalised."""
        images = [self.view1, self.view2, *([] if self.local is None else [self.local.flatten(0, 1)])]
        if self.changes is not None:
            rows = [self.changes[:, 0], self.changes[:, 1], self.changes[:, 2:].flatten(0, 1)]
            images = [change(image, of_image) for image, of_image in zip(images, rows, strict=False)]
        if self.view1.dtype == torch.uint8:
            images = [normalised(image) for image in images]
        local = None if self.local is None else images[2].unflatten(0, self.local.shape[:2])
        return self._replace(view1=images[0], view2=images[1], changes=None, local=local)


@dataclass(frozen=True)
class LocalCrops:
    """Crops of an image beside its two views, of smaller parts and at a lower resolution (multi-crop, arXiv 2006.09882)."""

    count: int = 0
    size: int = 96
    """Side length in pixels."""
    scale: tuple[float, float] = (0.05, 0.25)
    """Smallest and largest fraction of the image area."""


NO_LOCAL_CROPS = LocalCrops()


class Crop(NamedTuple):
    """A rectangle in whole pixels, and whether it is flipped left to right after cropping."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool = False


def random_crop(
    rng: random.Random, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> Crop:
    """Draw a crop: its fraction of the image area is uniform in ``scale``, its width/height is log-uniform in ``ratio``.

    If ten draws do not fit into the image, return the largest centred crop with an allowed ratio.
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
    """Return the largest centred crop of a width × height image whose width/height lies in ``ratio``."""
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return Crop((height - h) // 2, (width - w) // 2, h, w)


def random_flip(rng: random.Random, crop: Crop, probability: float = 0.5) -> Crop:
    """Return ``crop``, flipped with the given ``probability``."""
    return crop._replace(flipped=rng.random() < probability)


def box_of(crop: Crop, width: int, height: int) -> Box:
    """Return the box of ``crop`` in an image of width × height pixels. An image one pixel wide has x1 = x2 = 0."""
    across, down = max(width - 1, 1), max(height - 1, 1)
    x1, x2 = crop.left / across, (crop.left + crop.width - 1) / across
    y1, y2 = crop.top / down, (crop.top + crop.height - 1) / down
    if crop.flipped:
        x1, x2 = x2, x1
    return x1, y1, x2, y2


class ViewPlan(NamedTuple):
    """All that was drawn for one view: a backend only has to carry it out."""

    crop: Crop
    changes: Changes
    box: Box


def draw_views(
    rng: random.Random, recipe: tuple[Photometric, Photometric], width: int, height: int, scale: tuple[float, float]
) -> tuple[ViewPlan, ViewPlan]:
    """Draw two views of an image of width × height pixels. The pixels have no part in it, so this can precede decoding."""
    one, two = (_draw_view(rng, photometric, width, height, scale) for photometric in recipe)
    return one, two


def draw_local(
    rng: random.Random, photometric: Photometric, width: int, height: int, local: LocalCrops
) -> list[ViewPlan]:
    """Draw the local crops of an image, as `draw_views` draws its views."""
    return [_draw_view(rng, photometric, width, height, local.scale) for _ in range(local.count)]


def _draw_view(
    rng: random.Random, photometric: Photometric, width: int, height: int, scale: tuple[float, float]
) -> ViewPlan:
    crop = random_flip(rng, random_crop(rng, width, height, scale))
    return ViewPlan(crop, photometric.draw(rng), box_of(crop, width, height))
