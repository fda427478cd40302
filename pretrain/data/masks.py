"""Masks of cells, as in `ImageFolderMask` in `loader.py` of bytedance/ibot; blocks as in BEiT (arXiv 2106.08254, Alg. 1).

Shapes: n masks of (h, w) cells, M masked cells in all of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal

import numpy as np

Shape = Literal["block", "random"]
"""Rectangles of cells, or single cells."""
RATIO = (0.3, 1 / 0.3)
"""Range of height / width of a block."""
ATTEMPTS = 10
"""Draws of a block until one fits; if none does, the mask stays as it is."""


def draw_masks(
    rng: random.Random, count: int, height: int, width: int, ratios: Sequence[tuple[float, float]], shape: Shape
) -> np.ndarray:
    """Return ``count`` masks (n, h, w) of booleans. The fraction of masked cells is drawn for each mask by itself.

    Args:
        rng: generator that all draws come from.
        count: n.
        height: h.
        width: w.
        ratios: (middle, spread) of ranges; one range is chosen, and the fraction is uniform in middle ± spread.
        shape: shape of what is masked.
    """
    draw = block_mask if shape == "block" else random_mask
    masks = np.zeros((count, height, width), dtype=bool)
    for mask in masks:
        middle, spread = rng.choice(ratios)
        draw(rng, mask, rng.uniform(middle - spread, middle + spread) * mask.size)
    return masks


def block_mask(rng: random.Random, mask: np.ndarray, cells: float) -> None:
    """Add rectangles to the empty ``mask`` (h, w) until ``cells`` are masked, or no rectangle fits any more."""
    least = (min(mask.shape) // 3) ** 2
    while (missing := cells - mask.sum()) > 0:
        for _ in range(ATTEMPTS):
            area = rng.uniform(least, missing)
            aspect = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= mask.shape[0] or width >= mask.shape[1]:
                continue
            top, left = rng.randint(0, mask.shape[0] - height), rng.randint(0, mask.shape[1] - width)
            block = mask[top : top + height, left : left + width]
            if 0 < block.size - block.sum() <= missing:
                block[:] = True
                break
        else:
            return


def random_mask(rng: random.Random, mask: np.ndarray, cells: float) -> None:
    """Mask ⌊``cells``⌋ cells of the empty ``mask`` (h, w), each with the same probability."""
    mask.flat[rng.sample(range(mask.size), int(cells))] = True


def places(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places (M,) of the masked cells among the n·h·w cells, and their weights (M,) in the loss.

    The weight is 1 / (n · masked cells of the same mask), so that the loss is the mean over masks of the mean over masked cells.
    A mask without masked cells counts as 0.
    """
    rows = masks.reshape(len(masks), -1)
    masked = np.flatnonzero(rows)
    return masked, 1 / (len(rows) * rows.sum(1)[masked // rows.shape[1]])
