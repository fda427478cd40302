"""The learning curve of a run: a JSON line for each point, in a file of the run folder that is cut back when a run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixbench.files import finite, write_text

CURVE_FILE = "curve.jsonl"
"""Name of the file of a transfer run."""
POINTS = 200
"""About so many points are noted in a transfer run, and held by a result."""


def note_point(path: Path, step: int, values: Mapping[str, Any]) -> None:
    """Add a point to the curve in ``path``: the number of finished steps, and what was measured there."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(finite({"step": step, **values})) + "\n")


def cut_back(path: Path, step: int) -> None:
    """Remove the points after ``step`` from ``path``, and an incomplete last line."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines[: len(_points(lines))] if json.loads(line)["step"] <= step]
    write_text(path, "".join(f"{line}\n" for line in kept))


def read_curve(path: Path, most: int = POINTS, always: str = "") -> list[dict[str, float | None]]:
    """Return about ``most`` points of the curve in ``path``, evenly chosen, and the last one; [] if there is no file.

    Points that have the value ``always`` are among them besides.
    """
    if not path.exists():
        return []
    points = _points(path.read_text(encoding="utf-8").splitlines())
    numbers = [
        {key: value for key, value in point.items() if isinstance(value, int | float | None)} for point in points
    ]
    every, last = max(1, -(-len(numbers) // most)), len(numbers) - 1
    return [point for place, point in enumerate(numbers) if place % every == 0 or place == last or always in point]


def _points(lines: list[str]) -> list[dict[str, Any]]:
    """Return the points of ``lines`` up to the first that is none."""
    found = []
    for line in lines:
        try:
            point = json.loads(line)
            point["step"] + 0
        except (ValueError, KeyError, TypeError):
            break
        found.append(point)
    return found
