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

The outlines of a table are computed once; a figure only moves, turns and stretches them, all at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[Any]  # (n, 2) float32
Rng = np.random.Generator
TURNS = np.linspace(0, 2 * np.pi, 20, endpoint=False)
CIRCLE = np.stack([np.cos(TURNS), np.sin(TURNS)], 1)
LOOSE = 0.05  # how much the parts of a figure differ from the table: standard deviation of their sizes and places


@dataclass(frozen=True)
class Part:
    """A part as the table has it."""

    material: str
    polygons: list[Points]
    """They do not overlap."""
    pivot: tuple[float, float]
    """What it turns around."""
    swing: float = 0
    """The largest angle in degrees."""
    together: bool = False
    """Whether it moves as the part before it."""


Choice = list[list[Any]]
"""Several lists of parts and choices, of which a figure has one."""


@dataclass(frozen=True)
class Figure:
    """The parts of one object, in its own coordinates."""

    parts: list[Part]
    points: Points
    """(n, 2) the corners of all polygons of all parts."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first corner of each part."""
        return np.cumsum([0] + [sum(map(len, part.polygons)) for part in self.parts[:-1]])


def compiled(rows: list[Any]) -> list[Part | Choice]:
    """Return the parts of a table, from back to front."""
    found: list[Part | Choice] = []
    for row in rows:
        if isinstance(row, dict):
            options = row["either"] if "either" in row else [row["maybe"], []]
            found.append([compiled(option) for option in options])
        else:
            shape, material, *numbers = row
            found += SHAPES[shape](material, *numbers)
    return found


def chosen(parts: list[Part | Choice], rng: Rng) -> Iterator[Part]:
    """Yield the parts of one figure."""
    for part in parts:
        if isinstance(part, Part):
            yield part
        else:
            yield from chosen(part[int(rng.random() * len(part))], rng)


def draw_figure(table: list[Part | Choice], rng: Rng, tilt: float) -> Figure:
    """Return a figure in a random pose: its parts loose, the whole bent, stretched, tilted by up to ``tilt`` degrees."""
    parts = list(chosen(table, rng))
    counts = np.array([sum(map(len, part.polygons)) for part in parts])
    leaders = np.maximum.accumulate([0 if part.together else number for number, part in enumerate(parts)])
    points = np.concatenate([polygon for part in parts for polygon in part.polygons])

    turns = np.deg2rad([part.swing for part in parts]) * rng.uniform(-1, 1, len(parts))
    sizes, shifts = np.exp(rng.normal(0, LOOSE, (len(parts), 2))), rng.normal(0, LOOSE / 4, (len(parts), 2))
    cosine, sine = np.cos(turns), np.sin(turns)
    matrices = np.stack([cosine * sizes[:, 0], -sine * sizes[:, 1], sine * sizes[:, 0], cosine * sizes[:, 1]], 1)
    pivots = np.array([part.pivot for part in parts])
    row = np.repeat(leaders, counts)
    x, y = (points - pivots[row]).T
    a, b, c, d = matrices[row].T
    points = np.stack([a * x + b * y, c * x + d * y], 1) + (pivots + shifts)[row]

    wave, phase = rng.normal(0, 1.6, (2, 2)), rng.uniform(0, 6.3, 2)
    points += 0.06 * np.sin(points @ wave + phase)
    angle = np.deg2rad(rng.uniform(-tilt, tilt))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, rng.uniform(-0.12, 0.12)], [0, 1]])
    stretch = np.diag(np.exp(rng.normal(0, 0.1, 2)) * [rng.choice([-1, 1]), 1])
    return Figure(parts, (points @ (rotation @ shear @ stretch).T).astype(np.float32))


def part_of(material: str, *polygons: Any) -> list[Part]:
    """Return a part that does not swing; it varies around its middle."""
    arrays = [np.asarray(polygon, np.float32) for polygon in polygons]
    everything = np.concatenate(arrays)
    middle = (everything.min(0) + everything.max(0)) / 2
    return [Part(material, arrays, (float(middle[0]), float(middle[1])))]


def rounded(points: Any) -> NDArray[np.float64]:
    """Cut the corners of a closed polygon twice (Chaikin)."""
    points = np.asarray(points, float)
    for _ in range(2):
        following = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], 1).reshape(-1, 2)
    return points


def ellipse(material: str, x: float, y: float, rx: float, ry: float, turn: float = 0) -> list[Part]:
    """Return an ellipse."""
    cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    return part_of(material, CIRCLE * [rx, ry] @ np.array([[cosine, sine], [-sine, cosine]]) + [x, y])


def poly(material: str, *numbers: float) -> list[Part]:
    """Return a polygon."""
    return part_of(material, np.reshape(numbers, (-1, 2)))


def blob(material: str, *numbers: float) -> list[Part]:
    """Return a rounded polygon."""
    return part_of(material, rounded(np.reshape(numbers, (-1, 2))))


def ring(material: str, x: float, y: float, radius: float, width: float) -> list[Part]:
    """Return one polygon: around the outside, then to the hole and around it in the other direction."""
    closed = np.concatenate([CIRCLE, CIRCLE[:1]])
    return part_of(material, np.concatenate([closed * radius, closed[::-1] * (radius - width)]) + np.array([x, y]))


def spokes(material: str, x: float, y: float, radius: float, count: int) -> list[Part]:
    """Return thin triangles from the centre, turned by any angle."""
    turns = np.arange(count) / count * 2 * np.pi
    ends = [np.array([[0, 0], [np.cos(t), np.sin(t)], [np.cos(t + 0.09), np.sin(t + 0.09)]]) for t in turns]
    return [Part(material, [(end * radius + [x, y]).astype(np.float32) for end in ends], (x, y), 180)]


def row(material: str, x0: float, y0: float, x1: float, y1: float, count: int, gap: float) -> list[Part]:
    """Return boxes."""
    step = (x1 - x0) / count
    lefts = x0 + step * np.arange(count)
    wide = step * (1 - gap)
    return part_of(material, *([[a, y0], [a + wide, y0], [a + wide, y1], [a, y1]] for a in lefts))


def tuft(
    material: str, x: float, y: float, count: int, length: float, width: float, low: float, high: float
) -> list[Part]:
    """Return leaves, each of which swings by itself."""
    leaves = []
    for number, angle in enumerate(np.deg2rad(np.linspace(low, high, count))):
        forward = np.array([np.sin(angle), -np.cos(angle)]) * length * (0.75, 1, 0.88)[number % 3]
        side = np.array([-forward[1], forward[0]]) * width / length
        tip = forward + np.array([0, 0.12 * length])
        outline = rounded([[0, 0], 0.55 * forward + side, tip, 0.55 * forward - side]) + np.array([x, y])
        leaves.append(Part(material, [outline.astype(np.float32)], (x, y), 12))
    return leaves


def limb(
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
) -> list[Part]:
    """Return a bar and, if it has one, its far end."""
    discs = np.concatenate([CIRCLE[::2] * w0 / 2 + [x0, y0], CIRCLE[::2] * w1 / 2 + [x1, y1]]).astype(np.float32)
    found = [Part(material, [cv2.convexHull(discs)[:, 0]], (x0, y0), swing)]
    if end:
        outline = CIRCLE * [1.3 * radius, radius] + [x1 + 0.3 * radius, y1]
        found.append(Part(end, [outline.astype(np.float32)], (x0, y0), together=True))
    return found


SHAPES: dict[str, Any] = {"ellipse": ellipse, "poly": poly, "blob": blob, "limb": limb, "ring": ring}
SHAPES |= {"spokes": spokes, "row": row, "tuft": tuft}
