"""Curves of fine-tuning: the metric, or else the loss, against the iteration."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from benchmarks.report.charts import SCRIPT, figure, legend
from benchmarks.report.lines import ENDS, Points, ends, gathered, line_chart
from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section, row_titles
from benchmarks.tables.collected import Group, Task
from benchmarks.tables.options import chosen_columns

LOSS = "loss"


def section(contents: Contents) -> Section | None:
    """Return a chart for each protocol whose runs have curves; None without any."""
    charts, shown = list[Markup](), dict[str, str]()
    for group in contents.groups:
        titles = row_titles(group)
        for task, metric, head in chosen_columns(group, "first"):
            for name in (metric, LOSS):
                if series := dict(_series(contents, group, task, name)):
                    y = LOSS if name == LOSS else f"{metric}{'' if task.about.unit(metric) == '1' else ' (%)'}"
                    title = f"{task.protocol}{task.own}, training loss" if name == LOSS else head
                    title += f" – {group.scale} scale"
                    rows = [(titles[label], *ends(points)) for label, points in series.items()]
                    about = "Lines over the iterations. " + "; ".join(f"{row[0]} ends at {row[-1]}" for row in rows)
                    spec = line_chart(series, contents.series, "iteration", y, titles)
                    charts.append(figure(f"learning-{len(charts)}", spec, title, about, ("Row", *ENDS), rows))
                    shown |= {label: titles[label] for label in series}
                    break
    if not charts:
        return None
    intro = (
        "A line is the mean over the seeds, its band reaches from the lowest to the highest seed. "
        "A protocol that is evaluated only at the end shows its training loss."
    )
    body = fill("charts.html.j2", parts=[("", charts)], legend=legend([*shown], contents.series, shown))
    return Section("learning", "Learning curves", intro, body, script=SCRIPT)


def _series(contents: Contents, group: Group, task: Task, name: str) -> Iterator[tuple[str, Points]]:
    """Yield label -> the points of ``name`` of each row that has at least two."""
    for label in contents.options.ordered([*group.rows]):
        if entry := group.rows[label].get(task):
            points = gathered([run.get("curve") or [] for run in entry.runs], "step", name)
            if len(points) > 1:
                yield label, points
