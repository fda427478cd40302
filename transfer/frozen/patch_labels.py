"""What the patches of a label map show.

Shapes: H × W pixels, h × w patches, K classes.
"""

from __future__ import annotations

import numpy as np

from transfer.datasets.mask_numbers import IGNORED


def class_counts(labels: np.ndarray, cells: tuple[int, int], stride: int, classes: int) -> np.ndarray:
    """Return how many pixels of each patch have each class: (h · w, K) int64, patches row by row.

    Args:
        labels: (H, W), numbers of classes or `IGNORED`.
        cells: h and w. Pixels beyond the last patch do not count; a patch may reach beyond the picture.
        stride: side of a patch in pixels.
        classes: K.
    """
    height, width = cells
    labels = labels[: height * stride, : width * stride].astype(np.int64)
    rows, columns = np.arange(labels.shape[0]) // stride, np.arange(labels.shape[1]) // stride
    place = (rows[:, None] * width + columns) * classes + labels
    counts = np.bincount(place[labels != IGNORED], minlength=height * width * classes)
    return counts.reshape(height * width, classes)


def rarest(counts: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return which patches of a picture to remember, ``number`` of them at most, in ascending order.

    The patches are those whose classes are rare in the picture: the score of a patch is the number of patches with its
    class, summed over its classes, times a random number from 0 to 1. The smallest scores win. Patches of no class come last.

    Args:
        counts: (h · w, K), pixels of each class.
        number: number of patches.
        rng: source of the random numbers.
    """
    shown = counts > 0
    scores = shown.astype(np.float64) @ shown.sum(0) * rng.random(len(counts))
    scores[~shown.any(1)] = np.inf
    return np.sort(np.argsort(scores, kind="stable")[:number])
