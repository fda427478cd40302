"""Further views of the pictures of a split: parts of them, or their mirror images, fixed by a seed.

A place in a picture is (x, y) from (0, 0) at its top left corner to (1, 1) at its bottom right one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Crops:
    """One crop of each picture: a part with the picture's aspect ratio, which becomes an input of the usual size."""

    low: float
    """Smallest share of a side of the picture that a crop has."""
    high: float
    """Largest share; 1 for ``low`` and ``high`` is the whole picture."""
    flip: bool = False
    """Whether crops are mirrored, left to right."""
    seed: int = 0

    def box(self, index: int) -> tuple[float, float, float, float]:
        """Return the places (x1, y1, x2, y2) of the corners of the crop of picture ``index``."""
        rng = np.random.default_rng([self.seed, index])
        side = rng.uniform(self.low, self.high)
        x, y = rng.uniform(0, 1 - side, 2)
        return float(x), float(y), min(1.0, float(x + side)), min(1.0, float(y + side))

    def places(self, index: int, inside: np.ndarray) -> np.ndarray:
        """Return the places (n, 2) in picture ``index`` of places (n, 2) ``inside`` its crop."""
        x1, y1, x2, y2 = self.box(index)
        if self.flip:
            inside = inside * (-1, 1) + (1, 0)
        return np.asarray(inside * (x2 - x1, y2 - y1) + (x1, y1))

    def cut(
        self, picture: Image.Image, index: int, size: tuple[int, int], interpolation: Image.Resampling
    ) -> Image.Image:
        """Return the crop of ``picture``, which has number ``index``, in ``size`` (width, height)."""
        scaled = (at * side for at, side in zip(self.box(index), picture.size * 2, strict=True))
        found = picture.resize(size, interpolation, box=tuple(scaled))  # type: ignore[arg-type]
        return found.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else found
