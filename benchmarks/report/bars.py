"""Bars with intervals: each row under each protocol. They are the main figure too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from benchmarks.report.charts import SCRIPT, figure, picture
from benchmarks.report.markup import fill
from benchmarks.report.palette import scales
from benchmarks.report.section import Contents, Section, row_titles
from benchmarks.statistics.intervals import over_seeds
from benchmarks.tables.collected import Group
from benchmarks.tables.options import Column, chosen_columns
from pixbench.errors import UserError
from transfer.protocols import KINDS


def section(contents: Contents) -> Section | None:
    """Return a chart for the first metric of each protocol; None without results of transfer runs."""
    parts = dict[str, list[Markup]]()
    for place, (group, column) in enumerate(_columns(contents)):
        task, metric, head = column
        values = [*_values(contents, group, column)]
        written = [
            (
                value["title"],
                task.about.written(metric, value["mean"]),
                "–"
                if value["low"] is None
                else f"{task.about.written(metric, value['low'])} to {task.about.written(metric, value['high'])}",
                ", ".join(task.about.written(metric, number) for number in value["seeds"]),
            )
            for value in values
        ]
        about = f"Bars of {metric} under {task.protocol}. " + "; ".join(f"{name}: {mean}" for name, mean, *_ in written)
        heads = ("Row", f"Mean {metric}", "95 % interval", "Seeds")
        chart = figure(f"bars-{place}", _spec(contents, column, values), head, about, heads, written)
        parts.setdefault(_name(group), []).append(chart)
    if not parts:
        return None
    intro = (
        "A bar is the mean over the seeds, a circle a seed, a line the 95 % interval of the mean (three seeds or more)."
    )
    body = fill("charts.html.j2", parts=parts.items(), small=True)
    return Section("bars", "Main results", intro, body, script=SCRIPT)


def write_main_figure(contents: Contents, path: Path) -> None:
    """Write the bars of the first group of results to ``path``; see `benchmarks.report.charts.picture`.

    Raises:
        UserError: there are no results of transfer runs.
    """
    found = [(group, column) for group, column in _columns(contents) if group is contents.groups[0]]
    if not found:
        raise UserError(f"--figure {path}: there are no results of transfer runs to draw; run `pixbench suite` first")
    write_bars(contents, found, _name(found[0][0]), path)


def write_bars(contents: Contents, found: Sequence[tuple[Group, Column]], title: str, path: Path) -> None:
    """Write a chart of bars for each column of ``found``, two in a line, to ``path``; see `benchmarks.report.charts.picture`."""
    charts = []
    for group, column in found:
        heading = {"title": column[2]}
        charts.append({**_spec(contents, column, [*_values(contents, group, column)]), **heading, "width": 300})
    own = {"scale": {"color": "independent"}}  # a shared one has the colours of the first chart, which may lack rows
    about = {"title": {"text": title, "fontSize": 15, "offset": 12}, "columns": 2, "spacing": 36}
    about |= {"padding": {"left": 24, "right": 8, "top": 5, "bottom": 5}}  # a viewer may have a wider font
    picture({**about, "concat": charts, "resolve": own}, path)


def _columns(contents: Contents) -> Iterator[tuple[Group, Column]]:
    for group in contents.groups:
        for column in chosen_columns(group, "first"):
            yield group, column


def _name(group: Group) -> str:
    return f"{KINDS[group.kind].capitalize()}, {group.scale} scale"


def _values(contents: Contents, group: Group, column: Column) -> Iterator[dict[str, Any]]:
    """Yield a row each that has numbers under the protocol."""
    task, metric, _ = column
    titles = row_titles(group)
    for label in contents.options.ordered([*group.rows]):
        if entry := group.rows[label].get(task):
            found = over_seeds(entry.samples(metric))
            seeds = [value for value in entry.values(metric) if not math.isnan(value)]
            mean = None if math.isnan(found.mean) else found.mean
            about = {"row": label, "title": titles[label], "mean": mean}
            yield {**about, "low": found.low, "high": found.high, "seeds": seeds}


def _spec(contents: Contents, column: Column, values: list[dict[str, Any]]) -> dict[str, Any]:
    task, metric, _ = column
    form = f".{task.about.digits.get(metric, 1)}f"
    unit = "" if task.about.unit(metric) == "1" else " (%)"
    names = {"field": "title", "type": "nominal", "title": None, "sort": [value["title"] for value in values]}
    shown = scales([value["row"] for value in values], contents.series)["color"]
    number = {"type": "quantitative", "title": f"{metric}{unit}"}
    tip = [
        {"field": "title", "title": "row"},
        *(
            {"field": name, "title": words, "format": form}
            for name, words in (("mean", metric), ("low", "from"), ("high", "to"))
        ),
    ]
    mean = {
        "mark": {"type": "bar", "height": 15, "cornerRadiusEnd": 2, "opacity": 0.85},
        "encoding": {"x": {"field": "mean", **number}, "color": shown, "tooltip": tip},
    }
    interval = {
        "transform": [{"filter": "isValid(datum.low)"}],
        "mark": {"type": "rule", "color": "var(--ink)", "strokeWidth": 1.5},
        "encoding": {"x": {"field": "low", **number}, "x2": {"field": "high"}},
    }
    seeds = {
        "transform": [{"flatten": ["seeds"], "as": ["seed"]}],
        "mark": {"type": "point", "color": "var(--ink)", "fill": "var(--paper)", "size": 22, "strokeWidth": 1.2},
        "encoding": {"x": {"field": "seed", **number}},
    }
    return {
        "data": {"values": values},
        "height": 26 * len(values),
        "encoding": {"y": names},
        "layer": [mean, *([interval] if any(value["low"] is not None for value in values) else []), seeds],
    }
