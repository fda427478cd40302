"""Heat maps: each class under each protocol that measures classes."""

from __future__ import annotations

from markupsafe import Markup

from benchmarks.report.charts import SCRIPT, figure
from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section, row_titles
from benchmarks.tables.per_class import per_class
from pixbench.errors import UserError

FEW = 40
"""Most classes for which a cell is high enough to be read."""


def section(contents: Contents) -> Section | None:
    """Return a heat map for each protocol whose results hold values of classes; None without any."""
    charts = list[Markup]()
    for group in contents.groups:
        titles = row_titles(group)
        for task in group.tasks():
            try:
                document = per_class(group, task, contents.options)
            except UserError:  # no result has values of classes
                continue
            metric = document.records[0]["metric"]
            values = [
                {"class": record["class"], "title": titles[record["label"]], "mean": record["mean"]}
                for record in document.records
                if record["mean"] is not None
            ]
            classes = list(dict.fromkeys(value["class"] for value in values))
            (table,) = document.tables
            rows = [[cell.text for cell in row] for row in table.rows]
            title = f"{task.protocol}{task.own}: {metric} of each class – {group.scale} scale"
            about = f"A heat map of {len(classes)} classes and {len(table.heads) - 1} rows."
            heads = ["Class", *(titles[label] for label in dict.fromkeys(r["label"] for r in document.records))]
            spec = _spec(values, classes, heads[1:], f"{metric} (%)")
            charts.append(figure(f"classes-{len(charts)}", spec, title, about, heads, rows, tall=len(classes) > FEW))
    if not charts:
        return None
    intro = "The brighter, the better; the mean over the seeds. An empty cell: the test set has no such class."
    return Section("classes", "Classes", intro, fill("charts.html.j2", parts=[("", charts)]), script=SCRIPT)


def _spec(values: list[dict[str, object]], classes: list[str], names: list[str], metric: str) -> dict[str, object]:
    return {
        "data": {"values": values},
        "height": (18 if len(classes) <= FEW else 12) * len(classes),
        "mark": {"type": "rect"},
        "encoding": {
            "y": {"field": "class", "type": "nominal", "title": None, "sort": classes, "axis": {"labelFontSize": 11}},
            "x": {
                **{"field": "title", "type": "nominal", "title": None, "sort": names},
                "axis": {"orient": "top", "labelAngle": 30, "labelAlign": "right", "ticks": False},
            },
            "color": {
                **{"field": "mean", "type": "quantitative", "title": metric, "scale": {"scheme": "viridis"}},
                "legend": {"orient": "top", "gradientLength": 160, "titleOrient": "left"},
            },
            "tooltip": [
                {"field": "class"},
                {"field": "title", "title": "row"},
                {"field": "mean", "title": metric, "format": ".1f"},
            ],
        },
    }
