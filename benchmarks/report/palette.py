"""The colours of the page and of its charts, light and dark.

The first colours of rows are Okabe and Ito's, which colour-blind people tell apart. All are so dark or light that they have a
contrast of at least 3 : 1 with the page. Rows also differ by the dashes of their lines, as there may be more rows than colours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

COLOURS = {
    "paper": ("#ffffff", "#14171a"),
    "tint": ("#f3f5f7", "#1e2328"),
    "line": ("#d5dbe1", "#39424b"),
    "ink": ("#1b1f23", "#e8eaed"),
    "quiet": ("#56606b", "#a9b3bd"),
    "accent": ("#0b57a4", "#82bbf7"),
    "better": ("#17692c", "#7fd694"),
    "worse": ("#a3221c", "#ff9d96"),
    "row1": ("#0072b2", "#56b4e9"),
    "row2": ("#d55e00", "#ff8a3d"),
    "row3": ("#00805d", "#2fc598"),
    "row4": ("#b0508a", "#e39ac4"),
    "row5": ("#9a6a00", "#f0b429"),
    "row6": ("#5d6b7a", "#b4bec9"),
    "row7": ("#5b3a9e", "#b7a3ea"),
    "row8": ("#2a86b0", "#8fd3ee"),
    "row9": ("#8a4b3a", "#d9a08f"),
    "row10": ("#6f7a12", "#c8d35a"),
}
"""Name of a CSS variable -> light, dark."""
ROWS = sum(name.startswith("row") for name in COLOURS)
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])


def variables(dark: bool) -> str:
    """Return the declarations of the CSS variables."""
    return "".join(f"--{name}:{pair[dark]};" for name, pair in COLOURS.items())


def colour(place: int) -> str:
    """Return the colour of row number ``place`` in CSS."""
    return f"var(--row{place % ROWS + 1})"


def dash(place: int) -> list[int]:
    """Return the dashes of the line of row number ``place``, in pixels."""
    return DASHES[place // ROWS % len(DASHES)]


def scales(names: Sequence[str], all_names: Sequence[str]) -> dict[str, Any]:
    """Return Vega-Lite's "color" and "strokeDash" of a chart with the series ``names``; each has its place in ``all_names``."""
    places = [all_names.index(name) for name in names]
    about = {"field": "row", "type": "nominal", "legend": None}
    return {
        "color": {**about, "scale": {"domain": [*names], "range": [colour(place) for place in places]}},
        "strokeDash": {**about, "scale": {"domain": [*names], "range": [dash(place) for place in places]}},
    }


def resolved(value: Any) -> Any:
    """Return ``value`` with each CSS variable replaced by its light colour, at any depth, for pictures."""
    if isinstance(value, str):
        return re.sub(r"^var\(--(\w+)\)$", lambda found: COLOURS[found[1]][0], value)
    if isinstance(value, dict):
        return {key: resolved(part) for key, part in value.items()}
    return [resolved(part) for part in value] if isinstance(value, list) else value
