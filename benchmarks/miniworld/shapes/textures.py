"""Surface patterns, colours and noise of the world of shapes.

A pattern is a function of surface coordinates u, v (arrays of the same shape; an object extends from about −1 to 1) and
of a phase in [0, 1). It returns values in [0, 1]: the weight of the second colour. It moves, rotates and scales with
its object.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
Pattern = Callable[[Array, Array, float], Array]
TAU = np.float32(2 * np.pi)


def stripes(u: Array, v: Array, phase: float) -> Array:
    """Return stripes across the vertical axis."""
    return soft(np.sin(TAU * (np.float32(2.2) * v + np.float32(phase))))


def spokes(u: Array, v: Array, phase: float) -> Array:
    """Return twelve sectors around the centre."""
    return soft(np.sin(12 * np.arctan2(v, u) + TAU * np.float32(phase)))


def checks(u: Array, v: Array, phase: float) -> Array:
    """Return a checkerboard."""
    return soft(2 * np.sin(TAU * (np.float32(1.8) * u + np.float32(phase))) * np.sin(TAU * np.float32(1.8) * v))


def dots(u: Array, v: Array, phase: float) -> Array:
    """Return round dots on a square grid."""
    return soft(np.cos(TAU * (np.float32(2.3) * u + np.float32(phase))) + np.cos(TAU * np.float32(2.3) * v) - 0.55)


def panes(u: Array, v: Array, phase: float) -> Array:
    """Return large panes between thin frames."""
    across = np.abs((np.float32(1.6) * u + np.float32(phase)) % 1 - 0.5)
    along = np.abs((np.float32(1.6) * v) % 1 - 0.5)
    return soft(12 * (0.36 - np.maximum(across, along)))


def zigzag(u: Array, v: Array, phase: float) -> Array:
    """Return chevrons that point along the long axis."""
    return soft(np.sin(TAU * (np.float32(2.0) * (u - 1.3 * np.abs(v)) + np.float32(phase))))


def soft(wave: Array) -> Array:
    """Limit a wave to [0, 1], with edges about one pixel wide."""
    return np.clip(0.5 + np.float32(1.5) * wave, 0, 1)


def one_colour(u: Array, v: Array, phase: float) -> Array:
    """Return ``phase`` everywhere: a single colour."""
    return np.full_like(u, phase)


def noise(rng: np.random.Generator, height: int, width: int, cells: int = 4, octaves: int = 3) -> Array:
    """Return smooth noise (height, width) with a mean of about 0.5.

    It is a sum of enlarged random grids. Each grid is finer than the one before and has 0.6 times its weight.
    """
    total = np.zeros((height, width), np.float32)
    weight, weights = 1.0, 0.0
    stretch = rng.uniform(0.5, 2)
    for _ in range(octaves):
        rows, columns = max(2, int(cells * stretch)), max(2, int(cells / stretch * width / height))
        grid = Image.fromarray(rng.random((rows, columns), np.float32))
        total += np.float32(weight) * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        weights += weight
        weight *= 0.6
        cells *= 2
    return total / np.float32(weights)


def two_colours(rng: np.random.Generator, contrast: float = 110) -> tuple[Array, Array]:
    """Return two random colours (3,) in 0–255 with a distance of at least ``contrast``."""
    while True:
        first, second = rng.uniform(15, 240, (2, 3)).astype(np.float32)
        if np.linalg.norm(first - second) >= contrast:
            return first, second
