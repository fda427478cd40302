"""Ranks of the rows under frozen protocols against those under fine-tuned ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from benchmarks.report.charts import SCRIPT, figure, legend
from benchmarks.report.comparison import tables_of
from benchmarks.report.markup import fill
from benchmarks.report.palette import scales
from benchmarks.report.section import Contents, Section, row_titles
from benchmarks.statistics.agreement import ranks
from benchmarks.tables.agreement import agreement_document, both, first_columns
from benchmarks.tables.beside import beside
from benchmarks.tables.collected import Group
from benchmarks.tables.options import Column

LEAST = 2
"""Fewest rows that have an order."""


def section(contents: Contents) -> Section | None:
    """Return Kendall's τ and a chart for each pair of a frozen and a fine-tuned protocol of one scale; None without a pair."""
    parts, shown = list[tuple[Markup, dict[str, list[Markup]]]](), dict[str, str]()
    for group in beside(contents.groups):
        frozen, tuned = (first_columns(group, kind) for kind in ("frozen", "transfer"))
        if frozen and tuned:
            shown |= row_titles(group)
            charts = {
                one[2]: [*_charts(contents, group, one, tuned, f"{len(parts)}-{at}")] for at, one in enumerate(frozen)
            }
            parts.append((tables_of(agreement_document(group)), charts))
    if not parts:
        return None
    intro = (
        "Do frozen and fine-tuned protocols rank the rows in the same order? τ is 1 for the same order and −1 for the opposite "
        "one; with few rows it says little. In the charts, the better a row, the further it is to the right (frozen) and up "
        "(fine-tuned)."
    )
    body = fill("agreement.html.j2", parts=parts, legend=legend([*shown], contents.series, shown))
    return Section("agreement", "Agreement", intro, body, script=SCRIPT)


def _charts(contents: Contents, group: Group, frozen: Column, tuned: Sequence[Column], name: str) -> Iterator[Markup]:
    """Yield a chart for each of the columns ``tuned`` that shares rows with the column ``frozen``."""
    titles = row_titles(group)
    for place, column in enumerate(tuned):
        one, other = both(group, frozen, column)
        if len(one) >= LEAST:
            places = [*zip(one, ranks([*one.values()]), ranks([*other.values()]), strict=True)]
            rows = [(titles[label], f"{x:g}", f"{y:g}") for label, x, y in places]
            about = f"Ranks under {frozen[2]} and {column[2]}. " + "; ".join(
                f"{row}: {x} frozen, {y} fine-tuned" for row, x, y in rows
            )
            heads = ("Row", f"Rank, {frozen[2]}", f"Rank, {column[2]}")
            spec = _spec(contents, places, titles, frozen[2], column[2])
            yield figure(f"agreement-{name}-{place}", spec, column[2], about, heads, rows)


def _spec(
    contents: Contents, places: list[tuple[str, float, float]], titles: dict[str, str], frozen: str, tuned: str
) -> dict[str, Any]:
    values = [{"row": label, "title": titles[label], "x": x, "y": y} for label, x, y in places]
    axis = {"tickMinStep": 1, "format": "d"}
    scale = {"domain": [0.5, len(values) + 0.5], "reverse": True, "nice": False, "zero": False}
    about = {"type": "quantitative", "scale": scale, "axis": axis}
    tip = [{"field": "title", "title": "row"}, {"field": "x", "title": "frozen"}, {"field": "y", "title": "fine-tuned"}]
    return {
        "height": 190,
        "encoding": {"x": {"field": "x", "title": frozen, **about}, "y": {"field": "y", "title": tuned, **about}},
        "layer": [
            {
                "data": {"values": [{"x": place, "y": place} for place in (1, len(values))]},
                "mark": {"type": "line", "color": "var(--line)", "strokeWidth": 2},
            },
            {
                "data": {"values": values},
                "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
                "encoding": {
                    "color": scales([label for label, _, _ in places], contents.series)["color"],
                    "tooltip": tip,
                },
            },
        ],
    }
