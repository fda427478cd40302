"""Parts of the pictures of a split, or their mirror images, in place of the whole pictures.

A place in a picture is (x, y) from (0, 0) at its top left corner to (1, 1) at its bottom right one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from transfer.frozen.views import FILTERS, Views


@dataclass(frozen=True)
class Parts(Views):
    """One part of each picture, with the picture's aspect ratio, as an input of the usual size. It has no label map."""

    low: float = 1.0
    """Smallest share of a side of the picture that its part has."""
    high: float = 1.0
    """Largest share; 1 for both is the whole picture."""
    flip: bool = False
    """Whether parts are mirrored, left to right."""
    seed: int = 0
    """The same seed gives the same parts."""

    def __getitem__(self, index: int) -> Tensor:
        picture, (height, width) = self.pictures.picture(index), self.shape(index)
        x1, y1, x2, y2 = (at * side for at, side in zip(self.box(index), picture.size * 2, strict=True))
        picture = picture.resize((width, height), FILTERS[self.images.interpolation], box=(x1, y1, x2, y2))
        return pil_to_tensor(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else picture)

    def labels(self, index: int, corner: bool = False) -> np.ndarray:
        """There is none."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Return what decides the inputs besides the files of the pictures."""
        return {**super().about(), "parts": [self.low, self.high, self.flip, self.seed]}

    def box(self, index: int) -> tuple[float, float, float, float]:
        """Return the places (x1, y1, x2, y2) of the corners of the part of picture ``index``."""
        rng = np.random.default_rng([self.seed, index])
        side = rng.uniform(self.low, self.high)
        x, y = rng.uniform(0, 1 - side, 2)
        return float(x), float(y), min(1.0, float(x + side)), min(1.0, float(y + side))

    def places(self, index: int, inside: np.ndarray) -> np.ndarray:
        """Return the places (n, 2) in picture ``index`` of places (n, 2) ``inside`` its part."""
        x1, y1, x2, y2 = self.box(index)
        if self.flip:
            inside = inside * (-1, 1) + (1, 0)
        return np.asarray(inside * (x2 - x1, y2 - y1) + (x1, y1))
