"""Compose the scenes of the everyday world: a place, objects that are found there, light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from benchmarks.miniworld.cutout import LARGEST, areas_of, paste
from benchmarks.miniworld.everyday.figures import Choice, Part, compiled, draw_figure
from benchmarks.miniworld.everyday.materials import Palette
from benchmarks.miniworld.everyday.places import draw_place
from benchmarks.miniworld.everyday.sprites import area, draw
from benchmarks.miniworld.everyday.textures import Bank, Rng
from benchmarks.miniworld.scene import ObjectClass, Scene

KINDS = yaml.safe_load((Path(__file__).parent / "kinds.yaml").read_text(encoding="utf-8"))
PLACES = yaml.safe_load((Path(__file__).parent / "places.yaml").read_text(encoding="utf-8"))
STREET = "street"
TRIES = 6  # places tried for each drawing of an object


@dataclass(frozen=True, eq=False)
class Kind(ObjectClass):
    """An object class and how it is drawn."""

    figure: list[Part | Choice]
    tilt: float
    street: bool
    """Whether Cityscapes has it."""
    flies: bool


def kinds() -> tuple[Kind, ...]:
    """Return the kinds of `kinds.yaml`."""
    found = []
    for name, kind in KINDS["kinds"].items():
        how = {"tilt": kind["tilt"], "street": "street" in kind, "flies": "flies" in kind}
        found.append(Kind(name=name, figure=compiled(kind["figure"]), **kind["names"], **how))
    return tuple(found)


class Everyday:
    """The drawing of the everyday world with the seed ``seed``."""

    def __init__(self, seed: int) -> None:
        self.bank = Bank(seed)
        self.classes = kinds()
        self.of_streets = tuple(kind for kind in self.classes if kind.street)
        self.clutter = {name: compiled(thing["figure"]) for name, thing in KINDS["clutter"].items()}

    def portrait(self, rng: Rng, number: int, width: int, height: int) -> Scene:
        """Draw one large object."""
        kind = self.classes[number % len(self.classes)]
        return self._draw(rng, kind, place_of(rng, kind), self.classes, width, height, 1, False)

    def scene(self, rng: Rng, number: int, width: int, height: int, count: int, crowd: bool) -> Scene:
        """Draw up to ``count`` objects in a place that goes with one of them."""
        kind = self.classes[number % len(self.classes)]
        return self._draw(rng, kind, place_of(rng, kind), self.classes, width, height, count, crowd)

    def street(self, rng: Rng, number: int, width: int, height: int, count: int, crowd: bool) -> Scene:
        """Draw a street with up to twice ``count`` objects of Cityscapes' classes, because it is wide."""
        kind = self.of_streets[number % len(self.of_streets)]
        return self._draw(rng, kind, STREET, self.of_streets, width, height, 2 * count, crowd)

    def _draw(
        self,
        rng: Rng,
        kind: Kind,
        where: str,
        among: tuple[Kind, ...],
        width: int,
        height: int,
        count: int,
        crowd: bool,
    ) -> Scene:
        place = PLACES["places"][where]
        scene, horizon = draw_place(place, Palette(self.bank, PLACES, rng), rng, width, height)
        if rng.random() < 0.4:  # out of focus
            scene.image[:] = cv2.GaussianBlur(scene.pixels, (0, 0), float(rng.uniform(0.5, 1.6)))
        angle = rng.uniform(-2.6, -0.5)
        light = (float(0.8 * np.cos(angle)), float(0.8 * np.sin(angle)))
        for _ in range(rng.integers(0, 2)):
            self._add_clutter(scene, rng, place, horizon, light)
        weights = [place["kinds"].get(other.name, 0) for other in among]
        if crowd:
            members, middle = among[pick(rng, weights)], rng.uniform(0.25, 0.75) * width
            for _ in range(6):
                self._add(scene, rng, members, horizon, light, rng.uniform(150, 350), middle, crowd=True)
        areas = areas_of(rng, count, width * height)
        first = rng.integers(count)
        for position, pixels in enumerate(areas):
            chosen = kind if position == first else among[pick(rng, weights)]
            for _ in range(20 if position == first else 2):
                if self._add(scene, rng, chosen, horizon, light, float(pixels)):
                    break
                pixels *= 0.75
        if rng.random() < 0.3:  # in front of the objects
            self._add_clutter(scene, rng, place, horizon, light)
        light_up(scene, rng, self.bank, where == "room")
        return scene

    def _add(
        self,
        scene: Scene,
        rng: Rng,
        kind: Kind,
        horizon: float,
        light: tuple[float, float],
        pixels: float,
        middle: float | None = None,
        crowd: bool = False,
    ) -> bool:
        """Put an object that covers about so many ``pixels`` into the scene, if there is room; near ``middle`` if given."""
        height, width = scene.image.shape[:2]
        figure = draw_figure(kind.figure, rng, kind.tilt)
        across, tall = np.ptp(figure.points, 0).tolist()
        scale = min(float(np.sqrt(pixels / area(figure))), LARGEST * width / across, LARGEST * height / tall)
        cutout = draw(figure, Palette(self.bank, KINDS, rng), scale, light)
        rows, columns = cutout.opacity.shape
        for _ in range(TRIES):
            shadow = float(rng.uniform(0.25, 0.6))
            if kind.flies and rng.random() < 0.5:
                base, shadow = rows + rng.random() * max(0, height - rows), 0.0
            else:  # larger objects are nearer, so their feet are lower
                near = rows / height * rng.uniform(0.7, 1.3)
                base = horizon + (height - horizon) * np.clip(near, 0.08, 1)
                base = max(base, min(rows * rng.uniform(0.9, 1), 1.03 * height))  # but heads are in the picture
            reach = max(0.5 * width - 0.4 * columns, 0)
            x = 0.5 * width + rng.uniform(-reach, reach) if middle is None else middle + rng.uniform(-26, 26)
            if paste(scene, cutout, int(x - columns / 2), int(base - rows), kind, crowd, shadow):
                return True
        return False

    def _add_clutter(
        self, scene: Scene, rng: Rng, place: dict[str, Any], horizon: float, light: tuple[float, float]
    ) -> None:
        """Put a thing of no class into the scene if it hides no object."""
        height, width = scene.image.shape[:2]
        name = place["clutter"][rng.integers(len(place["clutter"]))]
        figure = draw_figure(self.clutter[name], rng, 6)
        size = float(rng.uniform(0.15, 0.5))
        scale = size * height / float(np.ptp(figure.points, 0).max())
        cutout = draw(figure, Palette(self.bank, KINDS, rng), scale, light)
        rows, columns = cutout.opacity.shape
        base = horizon + (height - horizon) * np.clip(size * rng.uniform(0.8, 2.4), 0.1, 1.2)
        paste(scene, cutout, int(rng.uniform(0, width) - columns / 2), int(base - rows), "static", shadow=0.4)


def place_of(rng: Rng, kind: Kind) -> str:
    """Return a random place where ``kind`` is found."""
    names = list(PLACES["places"])
    return names[pick(rng, [PLACES["places"][name]["kinds"].get(kind.name, 0) for name in names])]


def pick(rng: Rng, weights: list[float]) -> int:
    """Return a random position, with probabilities in proportion to ``weights``."""
    return int(np.searchsorted(np.cumsum(weights), rng.random() * sum(weights), side="right"))


def light_up(scene: Scene, rng: Rng, bank: Bank, indoors: bool) -> None:
    """Add the colour of the light, its slope over the scene, and the noise of a sensor."""
    height, width = scene.image.shape[:2]
    slope = rng.normal(0, 0.18, 2).astype(np.float32)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    warmth = rng.normal(0.05 if indoors else 0, 0.07)
    level = np.clip(1 + slope[0] * x + slope[1] * y, 0.4, 1.5) * np.float32(np.exp(rng.normal(0, 0.16)))
    grain = bank.grain(rng, width, height) * np.float32(rng.uniform(1, 6))
    light = cv2.merge([level * np.float32(1 + warmth), level, level * np.float32(1 - warmth)])
    scene.image = scene.image * light + cv2.merge([grain] * 3)
