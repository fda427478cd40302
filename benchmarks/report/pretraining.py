"""Curves of pre-training: loss, spread of the features and k-NN accuracy."""

from __future__ import annotations

from markupsafe import Markup

from benchmarks.published import title as title_of
from benchmarks.report.charts import SCRIPT, figure, legend
from benchmarks.report.lines import ENDS, ends, gathered, line_chart
from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section

SHARED = {"knn": ("k-NN accuracy", "accuracy (%)"), "feature_std": ("Spread of the features", "feature_std")}
"""Value -> title of its chart, title of its axis. These between methods; the loss cannot, so each method has a chart of it."""


def section(contents: Contents) -> Section | None:
    """Return the curves of all pre-training runs; None without any."""
    runs = contents.pretraining
    curves = {name: run.result.get("curve") or [] for name, run in runs.items()}
    methods = {name: run.result.get("method") or "unknown method" for name, run in runs.items()}
    wanted = [(title, axis, key, [*runs]) for key, (title, axis) in SHARED.items()]
    wanted += [
        (f"Loss of {method}", "loss", "loss", [name for name in runs if methods[name] == method])
        for method in dict.fromkeys(methods.values())
    ]
    titles = {name: title_of(name) for name in runs}
    charts = list[Markup]()
    for title, axis, key, names in wanted:
        by_epoch = all("epoch" in point for name in names for point in curves[name])
        place = "epoch" if by_epoch else "step"
        found = {name: gathered([curves[name]], place, key) for name in names}
        if found := {name: points for name, points in found.items() if points}:
            spec = line_chart(found, contents.series, place, axis, titles)
            rows = [(titles[name], methods[name], *ends(points)) for name, points in found.items()]
            about = f"Lines over the {place}s. " + "; ".join(f"{row[0]} ends at {row[-1]}" for row in rows)
            charts.append(figure(f"pretraining-{len(charts)}", spec, title, about, ("Run", "Method", *ENDS), rows))
    if not charts:
        return None
    intro = (
        "k-NN accuracy should rise. A feature_std near 0 means that the features have collapsed. "
        "Losses of different methods cannot be compared."
    )
    body = fill("charts.html.j2", parts=[("", charts)], legend=legend([*runs], contents.series, titles))
    return Section("pretraining", "Pre-training", intro, body, script=SCRIPT)
