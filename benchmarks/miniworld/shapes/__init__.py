"""The world of shapes: six object classes, each with an outline and a pattern of its own, and no colour of its own."""

from __future__ import annotations

import numpy as np

from benchmarks.miniworld.scene import Scene
from benchmarks.miniworld.shapes.object_classes import OBJECT_CLASSES, Shape
from benchmarks.miniworld.shapes.scenes import draw_scene
from benchmarks.miniworld.shapes.streets import draw_street


class Shapes:
    """The drawing of the world of shapes."""

    classes = OBJECT_CLASSES

    def portrait(self, rng: np.random.Generator, number: int, width: int, height: int) -> Scene:
        """Draw one object, 56 to 100 pixels long."""
        return draw_scene(rng, shape(number), width, height, count=1, sizes=(56, 100))

    def scene(self, rng: np.random.Generator, number: int, width: int, height: int, count: int, crowd: bool) -> Scene:
        """Draw up to ``count`` objects, each 40 to 80 pixels long."""
        return draw_scene(rng, shape(number), width, height, count, sizes=(40, 80), crowd=crowd)

    def street(self, rng: np.random.Generator, number: int, width: int, height: int, count: int, crowd: bool) -> Scene:
        """Draw a street with up to ``count`` objects."""
        return draw_street(rng, shape(number), width, height, count, crowd)


def shape(number: int) -> Shape:
    """Return the object class that scene ``number`` must contain."""
    return OBJECT_CLASSES[number % len(OBJECT_CLASSES)]
