"""Spatial sensitivity and smoothness: how the cosine of two cells falls with their distance, within regions and between them.

PixPro (Xie et al., arXiv 2011.10043, introduction and Section 3.2) names two properties of dense features: spatial sensitivity,
to tell close pixels apart, which is needed where labels change; and spatial smoothness, the likeness of close pixels, which
helps where they belong to the same label. Pixel contrast trains the first and propagation the second.

Shapes: H × W pixels of an input, h × w cells, C channels, D distances.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from transfer.datasets.mask_numbers import IGNORED

KINDS = ("inside", "across", "outside")
"""Both cells in one connected region of a class; in regions of different classes; in one connected region of the background."""
NEAR = 2
"""Largest distance, in cells, that counts for the sensitivity."""


class Curve:
    """Mean cosine of two cells of the same row or column by distance, 1 to D cells, and kind."""

    def __init__(self, distances: int) -> None:
        self.sums = {kind: np.zeros(distances) for kind in KINDS}
        self.counts = {kind: np.zeros(distances, dtype=np.int64) for kind in KINDS}

    def add(self, features: Tensor, regions: np.ndarray, classes: np.ndarray, background: int | None) -> None:
        """Add all pairs of a picture.

        Args:
            features: the map (h, w, C).
            regions: number of the region of each cell (h, w), -1 for cells that are not pure.
            classes: class of each cell (h, w).
            background: class of what is no object, if there is one.
        """
        unit, most = F.normalize(features.double(), dim=2), len(self.sums["inside"])
        for lines, region, label in ((unit, regions, classes), (unit.transpose(0, 1), regions.T, classes.T)):
            cosines = (lines @ lines.mT).cpu().numpy()  # of all pairs of each row, then of each column
            places = np.arange(lines.shape[1])
            distance = places - places[:, None]
            pure = (region >= 0)[:, :, None] & (region >= 0)[:, None] & (distance > 0) & (distance <= most)
            same = pure & (region[:, :, None] == region[:, None])
            is_background = (label == (-1 if background is None else background))[:, :, None]
            kinds = {
                "inside": same & ~is_background,
                "across": pure & (label[:, :, None] != label[:, None]),
                "outside": same & is_background,
            }
            for kind, chosen in kinds.items():
                which = np.broadcast_to(distance, chosen.shape)[chosen] - 1
                self.sums[kind] += np.bincount(which, cosines[chosen], minlength=most)
                self.counts[kind] += np.bincount(which, minlength=most)

    def mean(self, kind: str) -> np.ndarray:
        """Return the mean cosine (D,) of a kind; NaN at a distance without pairs."""
        counts = self.counts[kind]
        return np.where(counts > 0, self.sums[kind] / np.maximum(counts, 1), np.nan)

    def sensitivity(self) -> float:
        """Return the mean over the distances 1 and 2 of the cosine inside minus that across; NaN if none has both."""
        differences = (self.mean("inside") - self.mean("across"))[:NEAR]
        known = differences[~np.isnan(differences)]
        return float(known.mean()) if len(known) else math.nan

    def smoothness(self) -> float:
        """Return the mean cosine of neighbours inside an object."""
        return float(self.mean("inside")[0])

    def as_list(self, stride: int) -> list[dict[str, Any]]:
        """Return the curve as plain data: distance in cells and in pixels of the input, mean cosine and number of pairs."""
        means = {kind: self.mean(kind) for kind in KINDS}
        return [
            {"cells": place + 1, "pixels": (place + 1) * stride}
            | {kind: float(means[kind][place]) for kind in KINDS}
            | {f"{kind}_pairs": int(self.counts[kind][place]) for kind in KINDS}
            for place in range(len(self.sums["inside"]))
        ]


def regions_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each pixel's connected region (H, W), from 1, 0 for ignored pixels; and the class of each number."""
    regions, classes = np.zeros(labels.shape, dtype=np.int64), [IGNORED]
    for label in np.unique(labels[labels != IGNORED]):
        parts, count = ndimage.label(labels == label)
        regions[parts > 0] = parts[parts > 0] + len(classes) - 1
        classes += [int(label)] * count
    return regions, np.array(classes)


def pure_cells(labels: np.ndarray, shape: tuple[int, int], stride: int, purity: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the region and the class of each cell (h, w) of a label map (H, W).

    A cell belongs to the region with most of its pixels, and is pure if these are at least the share ``purity``. The region is
    -1 for the other cells. Ignored pixels, and those of a cell that reach out of the input, belong to no region.
    """
    regions, classes = regions_of(labels)
    (height, width), (rows, columns) = shape, labels.shape
    whole = np.zeros((height * stride, width * stride), dtype=np.int64)
    part = regions[: height * stride, : width * stride]
    whole[: min(rows, len(whole)), : min(columns, whole.shape[1])] = part
    cells = whole.reshape(height, stride, width, stride).swapaxes(1, 2).reshape(height * width, -1)
    keys = cells + np.arange(height * width)[:, None] * len(classes)
    counts = np.bincount(keys.ravel(), minlength=height * width * len(classes)).reshape(-1, len(classes))[:, 1:]
    if not counts.shape[1]:
        return np.full(shape, -1), np.full(shape, IGNORED)
    most = counts.argmax(1) + 1
    pure = counts.max(1) >= purity * stride**2
    return np.where(pure, most, -1).reshape(shape), classes[most].reshape(shape)
