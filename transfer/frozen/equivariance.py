"""Equivariance of cells: does a place in a picture get the same features in another view of the picture?

Shapes: maps of h × w cells and C channels. A place is (x, y) as in `transfer.frozen.parts`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.frozen.method import Split
from transfer.frozen.parts import Parts

LEAST = 8
"""Number of pairs of a picture, if it has so many."""


@dataclass
class Cosines:
    """Cosines of a cell in another view with the whole picture."""

    same: np.ndarray
    """(n,), at the same place."""
    other: np.ndarray
    """(n,), at the place of another of the picture's cells."""


def cosines(whole: Split, view: Split, pairs: int, seed: int) -> Cosines:
    """Compare cells of ``view`` with the same and with other places of ``whole``, at most ``pairs`` of both.

    The pairs are spread evenly over the pictures. The map of the whole picture is interpolated bilinearly; places outside of the
    centres of its outermost cells are left out, because nothing lies on their other side.
    """
    each = min(pairs, max(LEAST, pairs // len(whole)))
    count = min(len(whole), pairs // each)
    same, other = [np.zeros(0)], [np.zeros(0)]
    for number in range(count):
        index = number * len(whole) // count
        rng = np.random.default_rng([seed, index])
        cells, found = matched(whole, view, index, each, rng)
        if len(cells) > 1:
            turn = int(rng.integers(1, len(cells)))
            same.append(F.cosine_similarity(cells, found).cpu().numpy())
            other.append(F.cosine_similarity(cells, found.roll(turn, 0)).cpu().numpy())
    return Cosines(np.concatenate(same), np.concatenate(other))


def matched(whole: Split, view: Split, index: int, most: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return at most ``most`` cells (n, C) of ``view``, drawn by ``rng``, and features (n, C) of ``whole`` at their places."""
    assert isinstance(view.views, Parts)
    target = whole.features.map(index).double()
    cells = view.features.map(index).double().flatten(0, 1)
    places = (
        view.views.places(index, centres(view, index)) * whole.views.shape(index)[::-1] / whole.features.stride - 0.5
    )
    height, width = target.shape[:2]
    inside = ((places >= -1e-9) & (places <= np.array([width, height]) - 1 + 1e-9)).all(1)
    chosen = rng.permutation(np.flatnonzero(inside))[:most]
    return cells[chosen], sampled(target, torch.from_numpy(places[chosen]))


def centres(split: Split, index: int) -> np.ndarray:
    """Return the places (h · w, 2) of the centres of the cells of input ``index``."""
    height, width = split.features.shapes[index]
    rows, columns = np.mgrid[:height, :width]
    points = np.stack([columns.ravel(), rows.ravel()], 1) + 0.5
    return np.asarray(points * split.features.stride / split.views.shape(index)[::-1])


def sampled(features: Tensor, points: Tensor) -> Tensor:
    """Return the features (n, C) at ``points`` (n, 2), x and y in cells from the centre of the first cell, of a map (h, w, C)."""
    height, width = features.shape[:2]
    grid = (2 * points + 1) / torch.tensor([width, height], dtype=points.dtype) - 1
    found = F.grid_sample(
        features.permute(2, 0, 1)[None], grid[None, None].to(features), padding_mode="border", align_corners=False
    )
    return found[0, :, 0].T
