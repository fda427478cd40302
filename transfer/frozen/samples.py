"""What frozen protocols keep of a few test pictures: label maps, and features that are small enough to be shown in a report.

Shapes: n cells of C channels; D numbers are kept of each cell; a picture has h × w cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.datasets.classes import Classes
from transfer.datasets.colours import colours_of
from transfer.frozen.method import Split
from transfer.frozen.scenes import Scenes
from transfer.kept import Kept
from transfer.samples import SAMPLES, chosen, labelled, together

NUMBERS = (8, 16, 24, 32, 48, 64, 96)
"""Values of D to choose from."""
ERROR = 0.02
"""Largest error of the cosine of two cells that is wanted. That of a cell with itself is 1 and need not be computed."""
CELLS = 32
"""Most cells along a side; larger maps are averaged down to them."""
STEPS = 127
"""Largest whole number in an array of int8."""
OUTSIDE = 0.01
"""Share of cells at each end of a principal component that get its darkest and its brightest value."""


def keep_labels(
    kept: Kept,
    scenes: Scenes,
    names: Sequence[str],
    maps: Mapping[int, tuple[np.ndarray, np.ndarray]],
    classes: Classes | None = None,
) -> None:
    """Keep pictures with their true and their predicted label maps.

    Args:
        kept: what the run keeps.
        scenes: the pictures.
        names: the class of each number in the maps.
        maps: number of a picture in ``scenes`` -> both maps, of any size.
        classes: whose colours are taken, if not those of ``scenes``.
    """
    samples = {scenes.names[index]: labelled(scenes.picture(index), *both) for index, both in maps.items()}
    colours = colours_of(classes or scenes.classes, names)
    kept.arrays[SAMPLES] = together(samples, classes=np.array(names, str), colours=colours)


def features(split: Split) -> dict[str, np.ndarray]:
    """Return the features of the kept pictures of ``split``, reduced so that cosines of the cells of a picture survive.

    Returns:
        "images" (S,), names. Of each picture i "cells_i" (h, w, D) int8 and "scale_i" (): the inner product of two cells
        times scale² is about the cosine of their features. "error_i" () is the largest error of any two cells, and "pca_i"
        (h, w, 3) uint8 the first three principal components of the cells of all these pictures, as R, G and B.
    """
    scenes = split.views.scenes
    places = chosen(scenes.names)
    maps = [unit(averaged(split.features.map(index).clone().float())) for index in places]
    colours = principal_colours(torch.cat([cells.flatten(0, 1) for cells in maps]))
    parts = colours.split([cells.shape[0] * cells.shape[1] for cells in maps])
    samples = {}
    for index, cells, colour in zip(places, maps, parts, strict=True):
        numbers, scale, error = reduced(cells.flatten(0, 1))
        shape = cells.shape[:2]
        samples[scenes.names[index]] = {
            "cells": numbers.reshape(*shape, -1),
            "scale": np.float32(scale),
            "error": np.float32(error),
            "pca": colour.view(*shape, 3).numpy(),
        }
    return together(samples)


def averaged(cells: Tensor) -> Tensor:
    """Return a map (h, w, C) with at most `CELLS` cells along a side; cells of a larger one are averaged."""
    scale = min(1.0, CELLS / max(cells.shape[:2]))
    height, width = (max(1, round(scale * side)) for side in cells.shape[:2])
    return F.adaptive_avg_pool2d(cells.permute(2, 0, 1), (height, width)).permute(1, 2, 0)


def unit(cells: Tensor) -> Tensor:
    """Return cells (..., C) of length 1; those that are 0 stay so."""
    return F.normalize(cells, dim=-1)


def reduced(cells: Tensor) -> tuple[np.ndarray, float, float]:
    """Return few whole numbers of cells (n, C) of length 1: (n, D) int8, their scale, and the largest error of two cells.

    The cells are projected on the directions that keep most of their inner products, without subtracting a mean. D is the
    smallest of `NUMBERS` with an error of at most `ERROR`, or the largest one.
    """
    cosines = (cells @ cells.T).double()
    values, vectors = torch.linalg.eigh(cosines)  # in ascending order
    places = vectors.flip(1) * values.flip(0).clamp(min=0).sqrt()
    for count in NUMBERS:
        some = places[:, :count]
        scale = max(float(some.abs().max()), 1e-12) / STEPS
        numbers = (some / scale).round()
        errors = (numbers @ numbers.T * scale**2 - cosines).abs()
        error = float(errors.fill_diagonal_(0).max())
        if error <= ERROR or count >= places.shape[1]:
            break
    return numbers.to(torch.int8).numpy(), scale, error


def principal_colours(cells: Tensor) -> Tensor:
    """Return the first three principal components of cells (n, C) as colours (n, 3) uint8, from dark to bright.

    The sign of a component, which is arbitrary, is that with which its largest weight is above 0.
    """
    centred = (cells - cells.mean(0)).double()
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -3:].flip(1)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    found = centred @ (directions * largest.sign())
    low, high = (found.quantile(share, dim=0) for share in (OUTSIDE, 1 - OUTSIDE))
    return (255 * (found - low) / (high - low).clamp(min=1e-12)).round().clamp(0, 255).to(torch.uint8)
