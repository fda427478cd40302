"""Draw the place of a scene: labelled regions with whole-number corners, from back to front."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from benchmarks.miniworld.everyday.figures import rounded
from benchmarks.miniworld.everyday.materials import Palette
from benchmarks.miniworld.everyday.textures import Rng
from benchmarks.miniworld.scene import Layer, Polygon, Scene

Corners = list[tuple[float, float]]
NEAR = 1 / 130  # a texture of scale 1 has its own size in a scene of 130 pixels


def draw_place(place: dict[str, Any], palette: Palette, rng: Rng, width: int, height: int) -> tuple[Scene, float]:
    """Return a scene without objects, and its horizon: the row in pixels where the ground begins."""
    canvas = np.zeros((height, width, 3), np.uint8)
    scene = Scene(canvas.astype(np.float32))
    horizon = height * float(rng.uniform(*place["horizon"]))
    polygons: list[Polygon] = []
    names: list[tuple[str, str]] = []
    for shape, label, material, *numbers in place["layers"]:
        for corners in SHAPES[shape](rng, width, height, horizon, *numbers):
            polygons.append(np.rint(np.asarray(corners, float)).astype(int).tolist())
            names.append((label, material))
    owners = scene.fill_all(polygons)
    for number, (polygon, (label, material)) in enumerate(zip(polygons, names, strict=True), 1):
        mask = owners == number
        left, top, wide, tall = cv2.boundingRect(mask.view(np.uint8))
        if wide:
            part = np.s_[top : top + tall, left : left + wide]
            surface = palette.surface(material, wide, tall, float(height * NEAR))
            cv2.copyTo(surface, mask[part].view(np.uint8), canvas[part])
        scene.layers.append(Layer(label, polygon, mask))
    scene.image = canvas.astype(np.float32)
    return scene, horizon


def box(left: float, top: float, right: float, bottom: float) -> Corners:
    """Return a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def everything(rng: Rng, width: int, height: int, horizon: float) -> list[Corners]:
    """Return the whole frame."""
    return [box(0, 0, width - 1, height - 1)]


def below(rng: Rng, width: int, height: int, horizon: float) -> list[Corners]:
    """Return the ground."""
    return [box(0, horizon, width - 1, height - 1)]


def lane(rng: Rng, width: int, height: int, horizon: float) -> list[Corners]:
    """Return a road: across the scene, or towards a point on the horizon."""
    if rng.random() < 0.4:
        top = horizon + rng.uniform(0.1, 0.35) * (height - horizon)
        return [box(0, top, width - 1, height - 1 if rng.random() < 0.6 else top + 0.75 * (height - top))]
    middle, near = rng.uniform(0.25, 0.75) * width, rng.uniform(-0.2, 0.35, 2) * width
    far = rng.uniform(0.02, 0.12) * width
    return [
        [(middle - far, horizon), (middle + far, horizon), (width - 1 - near[0], height - 1), (near[1], height - 1)]
    ]


def strip(rng: Rng, width: int, height: int, horizon: float, low: float, high: float, chance: float) -> list[Corners]:
    """Return the ground below an uneven line, with the probability ``chance``."""
    if rng.random() >= chance:
        return []
    left, right = horizon + rng.uniform(low, high, 2) * (height - horizon)
    return [[(0, left), (width - 1, right), (width - 1, height - 1), (0, height - 1)]]


def hills(rng: Rng, width: int, height: int, horizon: float, tall: float) -> list[Corners]:
    """Return a wavy region above the horizon."""
    tops = horizon - rng.uniform(0, tall, 6) * height
    line = rounded(np.stack([np.linspace(-0.3, 1.3, 6) * width, tops], 1))[:-4]
    return [[*line.tolist(), (1.3 * width, horizon + 2), (-0.3 * width, horizon + 2)]]


def boxes(
    rng: Rng, width: int, height: int, horizon: float, few: int, many: int, small: float, large: float
) -> list[Corners]:
    """Return rectangles that stand on the horizon."""
    found = []
    for _ in range(rng.integers(few, many + 1)):
        left, wide, tall = rng.uniform(-0.15, 0.9) * width, *(rng.uniform(small, large, 2) * height)
        found.append(box(left, horizon - tall, left + wide, horizon + 2))
    return found


def crowns(
    rng: Rng, width: int, height: int, horizon: float, few: int, many: int, small: float, large: float
) -> list[Corners]:
    """Return uneven round regions at the horizon."""
    found = []
    turns = np.linspace(0, 2 * np.pi, 11, endpoint=False)
    for _ in range(rng.integers(few, many + 1)):
        radius = rng.uniform(small, large) * height
        reach = radius * rng.uniform(0.75, 1.15, 11)
        centre = [rng.uniform(0, width), horizon - 0.7 * radius]
        found.append(rounded(np.stack([reach * np.cos(turns), reach * np.sin(turns)], 1) + centre).tolist())
    return found


def frames(
    rng: Rng, width: int, height: int, horizon: float, few: int, many: int, small: float, large: float
) -> list[Corners]:
    """Return rectangles on the wall."""
    found = []
    for _ in range(rng.integers(few, many + 1)):
        left, top = rng.uniform(-0.05, 0.85) * width, rng.uniform(-0.05, 0.4) * horizon
        wide, tall = rng.uniform(small, large, 2) * height
        found.append(box(left, top, left + wide, min(top + tall, 0.9 * horizon)))
    return found


def rug(rng: Rng, width: int, height: int, horizon: float) -> list[Corners]:
    """Return an ellipse on the ground, in half of the scenes."""
    if rng.random() < 0.5:
        return []
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    centre = [rng.uniform(0.2, 0.8) * width, horizon + rng.uniform(0.4, 0.8) * (height - horizon)]
    reach = np.array([rng.uniform(0.25, 0.5) * width, rng.uniform(0.2, 0.4) * (height - horizon)])
    return [(np.stack([np.cos(turns), np.sin(turns)], 1) * reach + centre).tolist()]


SHAPES: dict[str, Any] = {"all": everything, "below": below, "lane": lane, "strip": strip, "hills": hills}
SHAPES |= {"boxes": boxes, "crowns": crowns, "frames": frames, "rug": rug}
