"""Materials: a texture and a ramp of colours, drawn anew for each object from what is typical of its kind."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from benchmarks.miniworld.everyday.textures import Bank, Field, Grey, Rng

WEIGHTS = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
LIGHTER = 0.1  # how much colours differ from the typical ones: standard deviation of their brightness, as a fraction,
TINTED = 8  # and of each channel
Material = tuple[str, Grey, float, float]
"""Texture, ramp of colours (256, 1, 3), scale and squeeze."""


class Palette:
    """The materials of one object: equal lists of colours give equal colours, so that its parts go together.

    Args:
        bank: the textures.
        tables: `colours` and `materials` as in `kinds.yaml`.
        rng: what draws them.
    """

    def __init__(self, bank: Bank, tables: dict[str, Any], rng: Rng) -> None:
        self.bank, self.tables, self.rng = bank, tables, rng
        self.positions: dict[str, float] = {}
        self.ready: dict[str, Material] = {}

    def surface(self, name: str, width: int, height: int, zoom: float) -> Grey:
        """Return pixels (height, width, 3) of a material, whose texture is enlarged by ``zoom``."""
        if name not in self.ready:
            self.ready[name] = self._material(name)
        family, ramp, scale, squeeze = self.ready[name]
        return cv2.applyColorMap(self.bank.crop(self.rng, family, width, height, scale * zoom, squeeze), ramp)

    def _material(self, name: str) -> Material:
        families, first, second, scale, *squeeze = self.tables["materials"][name]
        where, texture, size = self.rng.random(3).tolist()
        position = self.positions.setdefault(first, where)
        low = high = self._colour(first, position)
        if isinstance(second, str):
            high = self._colour(second, position)
        else:
            low, high = low - second, high + second
        ramp = (low + (high - low) * WEIGHTS).clip(0, 255).astype(np.uint8)[:, None]
        family = families[int(texture * len(families))]
        return family, ramp, scale * (0.8 + 0.45 * size), squeeze[0] if squeeze else 1.0

    def _colour(self, name: str, position: float) -> Field:
        """Return a colour (3,) like the one at ``position``, from 0 to 1, in the list ``name``."""
        colours = self.tables["colours"][name]
        noise = self.rng.standard_normal(4, np.float32)
        typical = np.array(colours[int(position * len(colours))], np.float32)
        return typical * (1 + np.float32(LIGHTER) * noise[3]) + np.float32(TINTED) * noise[:3]
