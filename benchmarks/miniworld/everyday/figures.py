"""Turn a table of parts into outlines in a random pose.

A figure is a list of rows in its own coordinates: x to the front, y down, about −1 to 1. A row is one of

- `[ellipse, material, x, y, rx, ry]`, with the turn in degrees as an optional last number;
- `[poly, material, x0, y0, x1, y1, …]`, with sharp corners, or `[blob, …]`, rounded;
- `[limb, material, x0, y0, x1, y1, w0, w1]`: a rounded bar, w0 and w1 wide at its ends. Optional: `swing`, the largest
  angle in degrees around its first end, and a material and a radius for its far end (a hand, a shoe);
- `[ring, material, x, y, radius, width]`; `[spokes, material, x, y, radius, count]`;
- `[row, material, x0, y0, x1, y1, count, gap]`: boxes side by side, `gap` of a step apart;
- `[tuft, material, x, y, count, length, width, low, high]`: leaves from one point, at angles from low to high in degrees
  (0 up, 90 to the front);
- `{maybe: rows}`: in half of the figures; `{either: [rows, rows, …]}`: one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Rng = np.random.Generator
Part = tuple[str, list[Points]]
"""Material and polygons, all of which are filled."""
TURNS = np.linspace(0, 2 * np.pi, 20, endpoint=False)
CIRCLE: Points = np.stack([np.cos(TURNS), np.sin(TURNS)], 1)
LOOSE = 0.05  # how much the parts of a figure differ from the table: standard deviation of their sizes and places


def parts_of(rows: list[Any], rng: Rng) -> Iterator[Part]:
    """Yield the parts of a figure from back to front, with random sizes and angles."""
    for row in rows:
        if isinstance(row, dict):
            if "maybe" in row:
                chosen = row["maybe"] if rng.random() < 0.5 else []
            else:
                chosen = row["either"][rng.integers(len(row["either"]))]
            yield from parts_of(chosen, rng)
            continue
        shape, material, *numbers = row
        if shape == "limb":
            yield from limb(rng, material, *numbers)
        elif shape == "tuft":
            yield from ((material, [leaf]) for leaf in tuft(rng, *numbers))
        else:
            yield material, loosened(rng, CONTOURS[shape](rng, *numbers))


def loosened(rng: Rng, contours: list[Points]) -> list[Points]:
    """Move and scale a part a little."""
    everything = contours[0] if len(contours) == 1 else np.concatenate(contours)
    centre = (everything.min(0) + everything.max(0)) / 2
    scale, shift = np.exp(rng.normal(0, LOOSE, 2)), rng.normal(0, LOOSE / 4, 2)
    return [(points - centre) * scale + centre + shift for points in contours]


def rounded(points: Points) -> Points:
    """Cut the corners of a closed polygon twice (Chaikin)."""
    return cutting(len(points)) @ points


@cache
def cutting(count: int) -> Points:
    """Return the matrix (4 · count, count) that rounds a polygon with ``count`` corners."""
    points = np.eye(count)
    for _ in range(2):
        following = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, count)
    return points


def ellipse(rng: Rng, x: float, y: float, rx: float, ry: float, turn: float = 0) -> list[Points]:
    """Return an ellipse."""
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    return [CIRCLE * [rx, ry] @ np.array([[cosine, sine], [-sine, cosine]]) + [x, y]]


def poly(rng: Rng, *numbers: float) -> list[Points]:
    """Return a polygon."""
    return [np.array(numbers, float).reshape(-1, 2)]


def blob(rng: Rng, *numbers: float) -> list[Points]:
    """Return a rounded polygon whose corners vary one by one."""
    points = np.array(numbers, float).reshape(-1, 2)
    return [rounded(points + rng.normal(0, 0.04, points.shape) * np.ptp(points, 0))]


def ring(rng: Rng, x: float, y: float, radius: float, width: float) -> list[Points]:
    """Return one polygon: around the outside, then to the hole and around it in the other direction."""
    closed = np.concatenate([CIRCLE, CIRCLE[:1]])
    return [np.concatenate([closed * radius, closed[::-1] * (radius - width)]) + [x, y]]


def spokes(rng: Rng, x: float, y: float, radius: float, count: int) -> list[Points]:
    """Return thin triangles from the centre."""
    turns = rng.uniform(0, 1) + np.arange(count) / count * 2 * np.pi
    ends = [np.array([[0, 0], [np.cos(t), np.sin(t)], [np.cos(t + 0.09), np.sin(t + 0.09)]]) for t in turns]
    return [end * radius + [x, y] for end in ends]


def row(rng: Rng, x0: float, y0: float, x1: float, y1: float, count: int, gap: float) -> list[Points]:
    """Return boxes; their number differs by up to a third."""
    count = max(1, round(count * rng.uniform(0.67, 1.34)))
    step = (x1 - x0) / count
    lefts = x0 + step * np.arange(count)
    return [poly(rng, a, y0, a + step * (1 - gap), y0, a + step * (1 - gap), y1, a, y1)[0] for a in lefts]


def tuft(rng: Rng, x: float, y: float, count: int, length: float, width: float, low: float, high: float) -> list[Points]:
    """Return leaves."""
    leaves = []
    for angle in np.deg2rad(np.linspace(low, high, max(2, round(count * rng.uniform(0.7, 1.3))))):
        angle += rng.normal(0, 0.15)
        forward = np.array([np.sin(angle), -np.cos(angle)]) * length * rng.uniform(0.65, 1.1)
        side = np.array([-forward[1], forward[0]]) * width / length
        droop = np.array([0, length * 0.12])
        middle = forward * 0.55
        leaves.append(rounded(np.array([[0, 0], middle + side, forward + droop, middle - side])) + [x, y])
    return leaves


CONTOURS: dict[str, Any] = {"ellipse": ellipse, "poly": poly, "blob": blob, "ring": ring, "spokes": spokes}
CONTOURS["row"] = row


def limb(
    rng: Rng,
    material: str,
    x0: float,
    y0: float,
    x1: float,
    y1: float,
    w0: float,
    w1: float,
    swing: float = 0,
    end: str = "",
    radius: float = 0,
) -> Iterator[Part]:
    """Yield a bar and, if it has one, its far end."""
    start, way = np.array([x0, y0]), np.array([x1 - x0, y1 - y0])
    angle = np.deg2rad(rng.uniform(-swing, swing))
    cosine, sine = np.cos(angle), np.sin(angle)
    way = np.array([[cosine, -sine], [sine, cosine]]) @ way * np.exp(rng.normal(0, LOOSE))
    w0, w1 = np.array([w0, w1]) * np.exp(rng.normal(0, LOOSE))
    stop = start + way
    discs = np.concatenate([CIRCLE[::2] * w0 / 2 + start, CIRCLE[::2] * w1 / 2 + stop]).astype(np.float32)
    yield material, [cv2.convexHull(discs)[:, 0].astype(float)]
    if end:
        yield end, ellipse(rng, *(stop + [radius * 0.3, 0]), radius * 1.3, radius)


def posed(parts: list[Part], rng: Rng, tilt: float) -> list[Part]:
    """Bend, stretch, shear, tilt (by up to ``tilt`` degrees) and flip a figure as a whole."""
    wave, phase = rng.normal(0, 1.5, (2, 2)), rng.uniform(0, 6.3, 2)
    angle = np.deg2rad(rng.uniform(-tilt, tilt))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, rng.uniform(-0.12, 0.12)], [0, 1]])
    stretch = np.diag(np.exp(rng.normal(0, 0.1, 2)) * [rng.choice([-1, 1]), 1])
    matrix = rotation @ shear @ stretch
    return [
        (material, [(points + 0.05 * np.sin(points @ wave + phase)) @ matrix.T for points in contours])
        for material, contours in parts
    ]
