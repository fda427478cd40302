"""Materials: a texture and a ramp of colours, drawn anew for each object from what is typical of its kind."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from benchmarks.miniworld.everyday.textures import Bank, Grey, Rng

WEIGHTS = np.linspace(0, 1, 256, dtype=np.float32)[:, None]


class Palette:
    """The materials of one object: equal lists of colours give equal colours, so that its parts go together."""

    def __init__(self, bank: Bank, tables: dict[str, Any], rng: Rng) -> None:
        self.bank, self.tables, self.rng = bank, tables, rng
        self.chosen: dict[str, float] = {}
        self.ready: dict[str, tuple[str, Grey, float, float]] = {}

    def colour(self, name: str, position: float) -> np.ndarray:
        """Return a colour (3,) like one of the list ``name``, the one at ``position`` in [0, 1)."""
        colours = self.tables["colours"][name]
        light, *shift = self.rng.normal(0, 1, 4)
        return np.array(colours[int(position * len(colours))], np.float32) * (1 + 0.1 * light) + 8 * np.array(shift)

    def material(self, name: str) -> tuple[str, Grey, float, float]:
        """Return texture, ramp (256, 1, 3), scale and squeeze of a material; the same ones each time."""
        if name not in self.ready:
            families, first, second, scale, *squeeze = self.tables["materials"][name]
            position = self.chosen.setdefault(first, float(self.rng.random()))
            colour = self.colour(first, position)
            if isinstance(second, str):
                low, high = colour, self.colour(second, position)
            else:
                low, high = colour - second, colour + second
            ramp = (low + (high - low) * WEIGHTS).clip(0, 255).astype(np.uint8)[:, None]
            family = families[int(self.rng.random() * len(families))]
            size = scale * self.rng.uniform(0.8, 1.25)
            self.ready[name] = (family, ramp, size, squeeze[0] if squeeze else 1.0)
        return self.ready[name]

    def surface(self, name: str, width: int, height: int, zoom: float) -> Grey:
        """Return pixels (height, width, 3) of a material, whose texture is enlarged by ``zoom``."""
        family, ramp, size, squeeze = self.material(name)
        values = self.bank.crop(self.rng, family, width, height, size * zoom, squeeze)
        return cv2.applyColorMap(values, ramp)
