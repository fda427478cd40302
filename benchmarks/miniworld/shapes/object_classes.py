"""The six object classes of the world of shapes: their names in each data set, their outlines and their patterns.

Each object class has its own outline *and* its own pattern, but no colour of its own: each object gets random colours.
The six are those that VOC, COCO and Cityscapes (as instances) have in common. Outlines are polygons (n, 2) of x, y (y
points down), scaled so that the longer side of their bounding box extends from −1 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.miniworld.scene import ObjectClass
from benchmarks.miniworld.shapes.textures import Pattern, checks, dots, panes, spokes, stripes, zigzag

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shape(ObjectClass):
    """An object class with its outline and its pattern."""

    outline: Points
    pattern: Pattern


Corners = list[list[float]]


def arc(radius: float, start: float, stop: float, count: int, centre: tuple[float, float] = (0, 0)) -> Corners:
    """Return points on a circle; angles are in turns (0 points to the right, 0.25 points down)."""
    angles = 2 * np.pi * np.linspace(start, stop, count)
    return np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], 1).tolist()


def outline(points: Corners) -> Points:
    """Centre ``points`` and scale them so that the longer side of their bounding box extends from −1 to 1."""
    array = np.array(points)
    low, high = array.min(0), array.max(0)
    return (array - (low + high) / 2) * 2 / (high - low).max()


def mirrored(left_half: Corners) -> Corners:
    """Add the mirror image to a half outline that runs from top to bottom at x ≤ 0."""
    return left_half + [[-x, y] for x, y in reversed(left_half)]


# The ring is one polygon: around the outside, then at angle 0 to the hole, then around the hole in the other direction.
RING: Corners = arc(1, 0, 1, 33) + arc(0.5, 1, 0, 25)
FIGURE: Corners = mirrored(
    [*arc(0.32, 0.75, 0.36, 7, (0, -0.68)), [-0.55, -0.3], [-0.6, 0.35], [-0.32, 0.4], [-0.36, 1.0]]
)
SALOON: Corners = [[-1, 0.45], [-1, 0], [-0.65, -0.1], [-0.4, -0.5], [0.35, -0.5], [0.6, -0.1], [0.95, 0], [1, 0.45]]
STAR: Corners = [p for k in range(5) for p in (arc(1, k / 5 - 0.25, 0, 1)[0], arc(0.45, k / 5 - 0.15, 0, 1)[0])]
BOX: Corners = [[-1, -0.6], [-0.88, -0.72], [0.88, -0.72], [1, -0.6], [1, 0.6], [0.88, 0.72], [-0.88, 0.72], [-1, 0.6]]
ARROW: Corners = [[-1, -0.36], [0.5, -0.36], [1, 0], [0.5, 0.36], [-1, 0.36], [-0.75, 0]]

OBJECT_CLASSES: tuple[Shape, ...] = (
    Shape("person", "person", 1, "n09835506", outline(FIGURE), stripes),
    Shape("bicycle", "bicycle", 2, "n02835271", outline(RING), spokes),
    Shape("car", "car", 3, "n02930766", outline(SALOON), checks),
    Shape("motorcycle", "motorbike", 4, "n03785016", outline(STAR), dots),
    Shape("bus", "bus", 6, "n03769881", outline(BOX), panes),
    Shape("train", "train", 7, "n04310018", outline(ARROW), zigzag),
)


def blob(rng: np.random.Generator) -> Points:
    """Return the outline of clutter, which has no object class: an uneven polygon with 3 to 8 corners."""
    count = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count)) if count > 4 else 2 * np.pi * np.arange(count) / count
    radius = rng.uniform(0.45, 1, count)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)
