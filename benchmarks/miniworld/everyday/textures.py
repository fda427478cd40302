"""The textures of the everyday world: a bank of grey pictures for each family, computed once from the seed of the world.

A texture is an array (SIDE, SIDE) uint8. `Bank.crop` takes a piece of one and scales it; the colours come later, from a
ramp of 256 colours. Cells and strokes have the sizes that look right at a scale of 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[Any]  # uint8
Field = NDArray[Any]  # float32
Rng = np.random.Generator
SIDE = 320
VARIANTS = 4
X, Y = np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32))


def clouds(rng: Rng, cells: float = 4, octaves: int = 4, wide: float = 1, fade: float = 0.55) -> Field:
    """Return smooth noise: a sum of enlarged random grids, each twice as fine as the one before and ``fade`` as strong.

    ``cells`` of the first grid fit into the side; ``wide`` stretches them along x.
    """
    total, weight = np.zeros((SIDE, SIDE), np.float32), 1.0
    for _ in range(octaves):
        rows, columns = max(2, int(cells)), max(2, int(cells / wide))
        grid = rng.standard_normal((rows, columns), np.float32)
        total += np.float32(weight) * cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        weight *= fade
        cells *= 2
    return total


def strokes(rng: Rng, length: int, width: float) -> Field:
    """Return noise of vertical strokes of about this length and width in pixels."""
    field = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE), np.float32), (0, 0), width)
    return cv2.blur(field, (1, length)) * 6


def bent(rng: Rng, amount: float) -> Field:
    """Return offsets in pixels that bend straight lines."""
    return clouds(rng, 3, 2) * np.float32(amount)


def grid(rng: Rng, wide: int, high: int, joint: float, shift: float) -> Field:
    """Return cells of random brightness with dark joints; every second row is moved by ``shift`` of a cell."""
    row = (Y // high).astype(int)
    x = X + (row % 2) * np.float32(shift * wide)
    column = (x // wide).astype(int)
    tone = rng.standard_normal((SIDE // high + 1, 2 * SIDE // wide + 1), np.float32)
    dark = (x % wide < joint) | (Y % high < joint)
    return np.where(dark, -3, tone[row, column] * 0.8)


def leaves(rng: Rng, count: int, long: float, thin: float) -> Field:
    """Return overlapping ellipses of random direction and brightness; later ones are brighter."""
    field = np.full((SIDE, SIDE), -2, np.float32)
    for number in range(count):
        centre = tuple(int(n) for n in rng.integers(0, SIDE, 2))
        axes = (max(1, int(long * rng.uniform(0.6, 1.3))), max(1, int(thin * rng.uniform(0.6, 1.3))))
        tone = -1.5 + 2.5 * number / count + rng.normal(0, 0.5)
        cv2.ellipse(field, centre, axes, rng.uniform(0, 180), 0, 360, tone, -1)
    return field


def facade(rng: Rng) -> Field:
    """Return rows of windows in a wall; some are lit."""
    wide, high = (int(n) for n in rng.integers(16, 30, 2))
    window = (np.abs(X % wide - wide / 2) < wide * 0.28) & (np.abs(Y % high - high / 2) < high * 0.3)
    lit = rng.choice([-2.2, -1.6, 1.8], (SIDE // high + 1, SIDE // wide + 1), p=[0.5, 0.3, 0.2]).astype(np.float32)
    wall = clouds(rng, 12, 3) * 0.25 + 0.6
    return np.where(window, lit[(Y // high).astype(int), (X // wide).astype(int)], wall)


def motif(rng: Rng) -> Field:
    """Return a random motif, mirrored and repeated: wallpaper, rugs."""
    side = int(rng.integers(7, 14))
    tile = cv2.resize(rng.standard_normal((4, 4), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    tile = np.concatenate([tile, tile[:, ::-1]], 1)
    tile = np.concatenate([tile, tile[::-1]], 0)
    copies = SIDE // len(tile) + 1
    return np.tile(tile, (copies, copies))[:SIDE, :SIDE] * 1.5 + clouds(rng, 4, 3) * 0.15


def feathers(rng: Rng) -> Field:
    """Return rows of scales, as of feathers or roof tiles."""
    wide, high = int(rng.integers(9, 14)), int(rng.integers(6, 10))
    row = (Y // high).astype(int)
    across = ((X + (row % 2) * np.float32(wide / 2)) % wide) / np.float32(wide) - 0.5
    along = (Y % high) / np.float32(high)
    return 2 * (along - 3 * across**2) + clouds(rng, 6, 3) * 0.5


FAMILIES: dict[str, Callable[[Rng], Field]] = {
    "plain": lambda rng: 0.35 * clouds(rng, 3, 6, fade=0.6),
    "grain": lambda rng: clouds(rng, 32, 3, fade=0.9) + 0.7 * clouds(rng, 3, 2),
    "fur": lambda rng: strokes(rng, int(rng.integers(9, 15)), 0.8) + 0.6 * clouds(rng, 5, 3),
    "wool": lambda rng: -1.6 * np.abs(clouds(rng, 22, 2)) + 0.3 * clouds(rng, 4, 2),
    "patches": lambda rng: 1.6 * np.tanh(6 * clouds(rng, 5, 3, fade=0.4)) + 0.3 * strokes(rng, 7, 0.8),
    "tabby": lambda rng: 1.3 * np.sin(0.42 * (X + bent(rng, 9))) + strokes(rng, 9, 0.8),
    "stripes": lambda rng: 2 * np.tanh(3 * np.sin((Y + bent(rng, 1.5)) * rng.uniform(0.3, 0.7))),
    "checks": lambda rng: sum(np.tanh(4 * np.sin(0.4 * axis)) for axis in (X, Y)) + 0.3 * clouds(rng, 30, 1),
    "feathers": feathers,
    "leaves": lambda rng: leaves(rng, 900, 7, 3),
    "foliage": lambda rng: leaves(rng, 2200, 4, 3) + clouds(rng, 6, 2),
    "grass": lambda rng: 0.9 * strokes(rng, int(rng.integers(7, 13)), 0.7) + clouds(rng, 4, 3),
    "crops": lambda rng: np.sin((Y + bent(rng, 5)) * rng.uniform(0.25, 0.5)) + clouds(rng, 24, 3),
    "bricks": lambda rng: grid(rng, 16, 8, 1.5, 0.5) + 0.4 * clouds(rng, 40, 2),
    "tiles": lambda rng: (
        0.8 * grid(rng, int(rng.integers(14, 30)), int(rng.integers(14, 30)), 1.2, 0) + 0.4 * clouds(rng, 20, 3)
    ),
    "planks": lambda rng: 0.7 * grid(rng, 110, int(rng.integers(9, 18)), 1.2, 0.4) + 0.8 * clouds(rng, 40, 3, wide=12),
    "wood": lambda rng: np.sin(0.5 * (Y + bent(rng, 12))) + clouds(rng, 40, 3, wide=10),
    "asphalt": lambda rng: clouds(rng, 100, 2) + 0.7 * clouds(rng, 3, 3),
    "sky": lambda rng: np.maximum(clouds(rng, 3, 5, wide=2, fade=0.6), -0.4) + 2 * Y / SIDE,
    "water": lambda rng: clouds(rng, 24, 3, wide=5, fade=0.7) + 0.5 * np.sin(0.5 * (Y + bent(rng, 8))),
    "clouds": lambda rng: clouds(rng, 4, 4),
    "sand": lambda rng: 0.7 * clouds(rng, 80, 2) + 0.6 * np.sin(0.35 * (Y + bent(rng, 14))),
    "motif": motif,
    "facade": facade,
    "metal": lambda rng: clouds(rng, 3, 2) + 0.25 * clouds(rng, 60, 2, wide=20),
    "ribs": lambda rng: 1.2 * np.sin(Y * rng.uniform(0.7, 1.0)) + 0.5 * clouds(rng, 4, 3),
    "glass": lambda rng: np.sin((X + Y) * rng.uniform(0.03, 0.07) + rng.uniform(0, 6)) + clouds(rng, 4, 3),
    "leather": lambda rng: np.abs(clouds(rng, 34, 2)) + 0.5 * clouds(rng, 4, 2),
}
"""The textures by name, as values in units of about one standard deviation."""


class Bank:
    """The textures of a world with the seed ``seed``."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.texture, self.noise = cache(self._texture), cache(self._noise)

    def _texture(self, family: str, variant: int) -> Grey:
        rng = np.random.Generator(np.random.PCG64([self.seed, zlib.crc32(family.encode()), variant]))
        field = FAMILIES[family](rng)
        return np.clip(128 + 52 * (field - field.mean()), 0, 255).astype(np.uint8)

    def _noise(self) -> Field:
        return np.random.Generator(np.random.PCG64([self.seed, 0])).standard_normal((SIDE, SIDE), np.float32)

    def crop(self, rng: Rng, family: str, width: int, height: int, scale: float = 1, squeeze: float = 1) -> Grey:
        """Return a random piece (height, width), enlarged by ``scale``.

        ``squeeze`` below 1 makes it flatter, as ground seen from the side.
        """
        texture = self.texture(family, int(rng.integers(VARIANTS)))
        piece = any_piece(rng, texture, int(width / scale) + 1, int(height / (scale * squeeze)) + 1)
        return cv2.resize(piece, (width, height))

    def grain(self, rng: Rng, width: int, height: int) -> Field:
        """Return noise (height, width) with a standard deviation of 1, independent from pixel to pixel."""
        return any_piece(rng, self.noise(), width, height)


def any_piece(rng: Rng, array: Any, width: int, height: int) -> Any:
    """Return a random piece of ``array`` (SIDE, SIDE), of the given size or as large as there is."""
    width, height = min(width, SIDE), min(height, SIDE)
    left, top = int(rng.random() * (SIDE - width)), int(rng.random() * (SIDE - height))
    return array[top : top + height, left : left + width]
