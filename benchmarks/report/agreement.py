"""Ranks of the rows under frozen protocols against those under fine-tuned ones."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from benchmarks.report.charts import SCRIPT, figure, legend
from benchmarks.report.markup import fill
from benchmarks.report.palette import scales
from benchmarks.report.section import Contents, Section, row_titles
from benchmarks.statistics.agreement import agreement, ranks
from benchmarks.tables.agreement import both, first_columns
from benchmarks.tables.beside import beside
from transfer.protocols import KINDS

LEAST = 2
"""Fewest rows that have an order."""


def section(contents: Contents) -> Section | None:
    """Return a chart for each pair of a frozen and a fine-tuned protocol of one scale; None without such a pair."""
    charts, shown = [], dict[str, str]()
    for group in beside(contents.groups):
        if not all(first_columns(group, kind) for kind in KINDS):
            continue
        titles = row_titles(group)
        columns = product(*(first_columns(group, kind) for kind in ("frozen", "transfer")))
        for frozen, tuned in columns:
            one, other = both(group, frozen, tuned)
            if len(one) < LEAST:
                continue
            found = agreement([*one.values()], [*other.values()])
            places = [*zip(one, ranks([*one.values()]), ranks([*other.values()]), strict=True)]
            shown |= {label: titles[label] for label in one}
            interval = "" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]"
            tau = "no order" if math.isnan(found.tau) else f"τ = {found.tau:.2f}{interval}, n = {found.n}"
            rows = [(titles[label], f"{x:g}", f"{y:g}") for label, x, y in places]
            heads = ("Row", f"Rank, {frozen[2]}", f"Rank, {tuned[2]}")
            spec = _spec(contents, places, titles, frozen[2], tuned[2])
            title = f"{frozen[2]} and {tuned[2]}: {tau}"
            about = "; ".join(f"{name}: {x} frozen, {y} fine-tuned" for name, x, y in rows)
            charts.append(figure(f"agreement-{len(charts)}", spec, title, about, heads, rows))
    if not charts:
        return None
    intro = (
        "Do frozen and fine-tuned protocols rank the rows in the same order? On the diagonal they agree. "
        "Kendall's τ is 1 for the same order and −1 for the opposite one; with few rows it says little."
    )
    body = fill("charts.html.j2", charts=charts, legend=legend([*shown], contents.series, shown))
    return Section("agreement", "Agreement", intro, body, script=SCRIPT)


def _spec(
    contents: Contents, places: list[tuple[str, float, float]], titles: dict[str, str], frozen: str, tuned: str
) -> dict[str, Any]:
    values = [{"row": label, "title": titles[label], "x": x, "y": y} for label, x, y in places]
    axis = {"tickMinStep": 1, "format": "d"}
    scale = {"domain": [len(values) + 0.5, 0.5], "nice": False}
    diagonal = [{"x": place, "y": place} for place in (1, len(values))]
    return {
        "height": 240,
        "layer": [
            {
                "data": {"values": diagonal},
                "mark": {"type": "line", "color": "var(--line)", "strokeWidth": 2},
                "encoding": {"x": {"field": "x", "type": "quantitative"}, "y": {"field": "y", "type": "quantitative"}},
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
                "encoding": {
                    "x": {
                        "field": "x",
                        "type": "quantitative",
                        "title": f"rank, frozen: {frozen}",
                        "axis": axis,
                        "scale": scale,
                    },
                    "y": {
                        "field": "y",
                        "type": "quantitative",
                        "title": f"rank, fine-tuned: {tuned}",
                        "axis": axis,
                        "scale": scale,
                    },
                    "color": scales([value["row"] for value in values], contents.series)["color"],
                    "tooltip": [
                        {"field": "title", "title": "row"},
                        {"field": "x", "title": "frozen"},
                        {"field": "y", "title": "fine-tuned"},
                    ],
                },
            },
        ],
    }
