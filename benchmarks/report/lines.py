"""Charts of lines: one line for each series, with a band where a series has several runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.report.palette import scales

Points = Mapping[float, Sequence[float]]
"""Place -> numbers of the runs there."""


def gathered(curves: Iterable[Sequence[Mapping[str, Any]]], place: str, name: str) -> dict[float, list[float]]:
    """Return place -> the numbers of all ``curves`` there; ``place`` and ``name`` are keys of their points."""
    found: dict[float, list[float]] = {}
    for curve in curves:
        for point in curve:
            x, y = point.get(place), point.get(name)
            if x is not None and y is not None and math.isfinite(x) and math.isfinite(y):
                found.setdefault(x, []).append(y)
    return dict(sorted(found.items()))


def line_chart(
    series: Mapping[str, Points], names: Sequence[str], x: str, y: str, titles: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a chart of Vega-Lite with a line through the means of each of ``series``, and a band from the lowest to the highest.

    Args:
        series: name -> its points.
        names: the names of all series of the page, for the colours.
        x: title of the axis of places.
        y: title of the axis of numbers.
        titles: what a series is called in the chart, if not by its name.
    """
    values = [
        {"row": name, "title": (titles or {}).get(name, name), "x": place, "y": sum(found) / len(found)}
        | ({"low": min(found), "high": max(found)} if len(found) > 1 else {})
        for name, points in series.items()
        for place, found in points.items()
    ]
    drawn = scales([*series], names)
    tip = [{"field": "title", "title": "row"}, {"field": "x", "title": x}, {"field": "y", "title": y, "format": ".4~g"}]
    few = max((len(points) for points in series.values()), default=0) <= 30
    about = {"type": "quantitative", "title": y, "scale": {"zero": False}}
    band = {
        "transform": [{"filter": "isValid(datum.low)"}],
        "mark": {"type": "area", "opacity": 0.18},
        "encoding": {"y": {"field": "low", **about}, "y2": {"field": "high"}},
    }
    line = {
        "mark": {"type": "line", "point": {"size": 24} if few else False},
        "encoding": {"y": {"field": "y", **about}, "strokeDash": drawn["strokeDash"]},
    }
    under_the_pointer = {
        "mark": {"type": "point", "opacity": 0, "filled": True, "size": 120},
        "encoding": {"y": {"field": "y", **about}, "tooltip": tip},
    }
    place = {"field": "x", "type": "quantitative", "title": x, "axis": {"grid": False}, "scale": {"nice": False}}
    return {
        "data": {"values": values},
        "height": 220,
        "encoding": {"x": place, "color": drawn["color"]},
        "layer": [*([band] if any("low" in value for value in values) else []), line, under_the_pointer],
    }


def ends(points: Points) -> tuple[str, str, str, str]:
    """Return the first, the lowest, the highest and the last of the means, as texts."""
    means = [sum(found) / len(found) for found in points.values()]
    first, low, high, last = (f"{value:.4g}" for value in (means[0], min(means), max(means), means[-1]))
    return first, low, high, last


ENDS = ("First", "Lowest", "Highest", "Last")
