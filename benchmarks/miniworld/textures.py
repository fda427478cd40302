"""Surface patterns, colours and noise of the mini world.

A pattern is a function of surface coordinates u, v (arrays of one shape; an object reaches from about −1 to 1) and a phase
in [0, 1), and returns values in [0, 1]: how much of the second colour shows. It moves, turns and scales with its object.
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
    """Bands across the upright axis."""
    return soft(np.sin(TAU * (np.float32(2.2) * v + np.float32(phase))))


def spokes(u: Array, v: Array, phase: float) -> Array:
    """Twelve sectors round the centre."""
    return soft(np.sin(12 * np.arctan2(v, u) + TAU * np.float32(phase)))


def checks(u: Array, v: Array, phase: float) -> Array:
    """A checkerboard."""
    return soft(2 * np.sin(TAU * (np.float32(1.8) * u + np.float32(phase))) * np.sin(TAU * np.float32(1.8) * v))


def dots(u: Array, v: Array, phase: float) -> Array:
    """Round spots on a square lattice."""
    return soft(np.cos(TAU * (np.float32(2.3) * u + np.float32(phase))) + np.cos(TAU * np.float32(2.3) * v) - 0.55)


def panes(u: Array, v: Array, phase: float) -> Array:
    """Large panes between thin frames."""
    across = np.abs((np.float32(1.6) * u + np.float32(phase)) % 1 - 0.5)
    along = np.abs((np.float32(1.6) * v) % 1 - 0.5)
    return soft(12 * (0.36 - np.maximum(across, along)))


def zigzag(u: Array, v: Array, phase: float) -> Array:
    """Chevrons that point along the long axis."""
    return soft(np.sin(TAU * (np.float32(2.0) * (u - 1.3 * np.abs(v)) + np.float32(phase))))


def soft(wave: Array) -> Array:
    """Squash a wave into [0, 1] with edges about a pixel wide."""
    return np.clip(0.5 + np.float32(1.5) * wave, 0, 1)


def one_colour(u: Array, v: Array, phase: float) -> Array:
    return np.full_like(u, phase)


def noise(rng: np.random.Generator, height: int, width: int, cells: int = 4, octaves: int = 3) -> Array:
    """Smooth noise (height, width) with mean about 0.5: random grids enlarged, each finer one at 0.6 of the strength."""
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
    """Two random colours (3,) in 0–255, at least ``contrast`` apart."""
    while True:
        first, second = rng.uniform(15, 240, (2, 3)).astype(np.float32)
        if np.linalg.norm(first - second) >= contrast:
            return first, second
