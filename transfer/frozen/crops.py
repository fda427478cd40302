"""Random crops of the pictures of a split, with changed colours, in place of the whole pictures.

Shapes: n pictures; view i is a crop of picture i mod n, so n views are one pass over the pictures.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as colours
from torchvision.transforms.v2.functional import pil_to_tensor

from pretrain.data.views import Crop, random_crop
from transfer.frozen.views import FILTERS, Views, resized_labels

CHANGES = (
    colours.adjust_brightness,
    colours.adjust_contrast,
    colours.adjust_saturation,
    colours.adjust_hue,
)


@dataclass(frozen=True)
class CropSettings:
    """How crops are drawn."""

    passes: int
    """Number of crops of each picture."""
    scale: tuple[float, float]
    """Range of the share of the picture's area. A share that does not fit into the picture is drawn again."""
    ratio: tuple[float, float]
    """Range of width / height."""
    jitter: float
    """Most that the factors of brightness, contrast and saturation differ from 1, and the shift of the hue from 0."""
    jitter_probability: float
    """Probability of each of the four changes."""
    seed: int


@dataclass(frozen=True)
class Crops(Views):
    """Random crops, squashed to squares; the same seed gives the same crops, whatever reads them."""

    settings: CropSettings

    def __len__(self) -> int:
        return self.settings.passes * len(self.pictures)

    def shape(self, index: int) -> tuple[int, int]:
        """Return H and W of view ``index``."""
        return self.images.size, self.images.size

    def __getitem__(self, index: int) -> Tensor:
        picture = self.pictures.picture(index % len(self.pictures))
        rng, crop = self._drawn(index, picture.size)
        for change in CHANGES:
            if rng.random() < self.settings.jitter_probability:
                shift = rng.uniform(-self.settings.jitter, self.settings.jitter)
                picture = change(picture, shift if change is colours.adjust_hue else 1 + shift)
        box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
        size = (self.images.size, self.images.size)
        return pil_to_tensor(picture.crop(box).resize(size, FILTERS[self.images.interpolation]))

    def labels(self, index: int, corner: bool = False) -> np.ndarray:
        """Return the label map of view ``index``: (H, W) uint8."""
        labels = self.scenes.label_map(index % len(self.pictures))
        _, crop = self._drawn(index, labels.shape[::-1])
        part = labels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        return resized_labels(np.ascontiguousarray(part), self.shape(index), corner)

    def about(self) -> dict[str, Any]:
        """Return what decides the views besides the files of the pictures."""
        return {**super().about(), "crops": asdict(self.settings)}

    def _drawn(self, index: int, size: tuple[int, ...]) -> tuple[random.Random, Crop]:
        """Return the crop of view ``index`` from a picture of ``size`` (width, height), and a generator for the colours."""
        rng = random.Random(f"{self.settings.seed} {index}")
        return rng, random_crop(rng, size[0], size[1], self.settings.scale, self.settings.ratio)
