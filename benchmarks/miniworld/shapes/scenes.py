"""Draw scenes: textured objects in random poses on cluttered ground, with pixel-exact masks.

H × W is the size of the scene in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.miniworld.scene import MIN_INSIDE, Array, Layer, Mask, Polygon, Scene, Thing, window
from benchmarks.miniworld.shapes.object_classes import OBJECT_CLASSES, Points, Shape, blob
from benchmarks.miniworld.shapes.textures import Pattern, noise, one_colour, two_colours

TRIES = 12


@dataclass(frozen=True)
class Pose:
    """Position of an outline in the image: pixel = matrix · point + centre."""

    centre: Points
    matrix: Points

    @classmethod
    def draw(cls, rng: np.random.Generator, centre: Points, size: float, turn: float) -> Pose:
        """Draw a random pose.

        ``size`` is the longer side in pixels before rotation, ``turn`` is the largest angle in degrees.
        """
        angle = np.deg2rad(rng.uniform(-turn, turn))
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.diag(np.exp(rng.uniform(-0.14, 0.14, 2)) * [rng.choice([-1, 1]), 1])
        shear = np.array([[1, rng.uniform(-0.2, 0.2)], [0, 1]])
        return cls(centre, rotation @ shear @ stretch * size / 2)

    def polygon(self, outline: Points) -> Polygon:
        """Return ``outline`` in this pose, rounded to whole pixels."""
        return np.rint(outline @ self.matrix.T + self.centre).astype(int).tolist()


def surface(
    rng: np.random.Generator, pattern: Pattern, pose: Pose, rows: slice, columns: slice, contrast: float
) -> Array:
    """Return the colours (rows, columns, 3) of a patterned and shaded surface in ``pose``."""
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(pose.centre[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(pose.centre[1])
    inverse = np.linalg.inv(pose.matrix).astype(np.float32)
    u, v = inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y
    blend = pattern(u, v, float(rng.random())) * np.float32(rng.uniform(0.75, 1))
    first, second = two_colours(rng, contrast)
    light = rng.uniform(-0.35, 0.35, 2).astype(np.float32)
    shade = np.clip(1 + light[0] * u + light[1] * v, 0.5, 1.5)
    return (first + blend[..., None] * (second - first)) * shade[..., None]


def paint(
    scene: Scene, rng: np.random.Generator, mask: Mask, pattern: Pattern, pose: Pose, contrast: float = 110
) -> None:
    """Paint the pixels of ``mask`` with a patterned and shaded surface in ``pose``."""
    rows, columns = window(mask)
    patch = scene.image[rows, columns]
    inside = mask[rows, columns]
    patch[inside] = surface(rng, pattern, pose, rows, columns, contrast)[inside]


def add_object(
    scene: Scene, rng: np.random.Generator, object_class: Shape, centre: Points, size: float, crowd: bool = False
) -> bool:
    """Put one object on top; return False and draw nothing if it would hide another object or leave the frame."""
    pose = Pose.draw(rng, centre, size, turn=35)
    polygon = pose.polygon(object_class.outline)
    mask = scene.fill(polygon)
    x, y = np.array(polygon, float).T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    if mask.sum() < MIN_INSIDE * area or scene.would_hide(mask):
        return False
    if rng.random() < 0.5:  # a shadow on the layers behind the object
        shift = rng.integers(2, 7, 2)
        shadow = np.zeros_like(mask)
        shadow[shift[0] :, shift[1] :] = mask[: -shift[0], : -shift[1]]
        scene.image[shadow] *= np.float32(rng.uniform(0.5, 0.8))
    paint(scene, rng, mask, object_class.pattern, pose)
    height, width = mask.shape
    truncated = bool(x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height)
    scene.cover(Thing(object_class.name, polygon, mask, mask.copy(), object_class, crowd, truncated))
    return True


def add_clutter(scene: Scene, rng: np.random.Generator, size: float) -> bool:
    """Put clutter without an object class on top; return False and draw nothing if it would hide an object.

    It has an uneven outline and one colour, or sometimes a pattern, so that a pattern does not prove an object.
    """
    height, width = scene.image.shape[:2]
    pose = Pose.draw(rng, rng.uniform(0, 1, 2) * [width, height], size, turn=180)
    polygon = pose.polygon(blob(rng) * [1, rng.choice([1, 0.3])])
    mask = scene.fill(polygon)
    if not mask.any() or scene.would_hide(mask):
        return False
    pattern = OBJECT_CLASSES[rng.integers(len(OBJECT_CLASSES))].pattern if rng.random() < 0.1 else one_colour
    paint(scene, rng, mask, pattern, pose, contrast=60)
    scene.cover(Layer("static", polygon, mask))
    return True


def ground(rng: np.random.Generator, height: int, width: int) -> Scene:
    """Return an empty scene with textured ground."""
    first, second = two_colours(rng, 60)
    blend = noise(rng, height, width, cells=int(rng.integers(2, 9)), octaves=4)
    if rng.random() < 0.5:  # weak waves
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
        kx, ky = rng.uniform(-0.9, 0.9, 2).astype(np.float32)
        blend = blend + np.float32(rng.uniform(0.05, 0.25)) * np.sin(kx * x + ky * y)
    return Scene(first + np.clip(1.6 * blend - 0.3, 0, 1)[..., None] * (second - first))


def spots(rng: np.random.Generator, count: int, low: Points, high: Points) -> Iterator[Points]:
    """Yield ``count`` random points between ``low`` and ``high``."""
    for _ in range(count):
        yield rng.uniform(low, high)


def light_up(scene: Scene, rng: np.random.Generator) -> None:
    """Add uneven light to the whole scene, then sensor noise."""
    height, width = scene.image.shape[:2]
    slope = rng.uniform(-0.45, 0.45, 2).astype(np.float32)
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    scene.image *= (np.float32(rng.uniform(0.75, 1.1)) * np.clip(1 + slope[0] * x + slope[1] * y, 0.4, 1.4))[..., None]
    scene.image += np.float32(rng.uniform(1, 6)) * rng.standard_normal((height, width, 1), np.float32)


def draw_scene(
    rng: np.random.Generator,
    object_class: Shape,
    width: int,
    height: int,
    count: int,
    sizes: tuple[float, float],
    crowd: bool = False,
) -> Scene:
    """Draw a scene with up to ``count`` objects, each ``sizes`` (minimum, maximum) pixels long.

    The first object is behind the others and has the class ``object_class``. If ``crowd``, a crowd is behind them all.
    """
    scene = ground(rng, height, width)
    frame = np.array([width, height])
    for _ in range(int(rng.integers(2, 6))):
        add_clutter(scene, rng, rng.uniform(18, 60))
    if crowd:
        members = OBJECT_CLASSES[rng.integers(len(OBJECT_CLASSES))]
        middle = rng.uniform(0.3, 0.7, 2) * frame
        for centre in spots(rng, 6, middle - 22, middle + 22):
            add_object(scene, rng, members, centre, rng.uniform(18, 26), crowd=True)
    for number in range(count):
        chosen = OBJECT_CLASSES[rng.integers(len(OBJECT_CLASSES))] if number else object_class
        for centre in spots(rng, TRIES if number else 1000, 0.15 * frame, 0.85 * frame):
            if add_object(scene, rng, chosen, centre, rng.uniform(*sizes)):
                break
    if rng.random() < 0.35:  # clutter in front of the objects
        for _ in range(int(rng.integers(1, 3))):
            add_clutter(scene, rng, rng.uniform(15, 40))
    light_up(scene, rng)
    return scene
