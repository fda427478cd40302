"""Curves of pre-training: loss, spread of the features and k-NN accuracy."""

from __future__ import annotations

from benchmarks.report.charts import SCRIPT, figure, legend
from benchmarks.report.lines import ENDS, ends, gathered, line_chart
from benchmarks.report.markup import fill
from benchmarks.report.section import Contents, Section

SHARED = {"feature_std": "Spread of the features (feature_std)", "knn": "k-NN accuracy (%)"}
"""What can be compared between methods; the loss cannot, so each method has a chart of it."""


def section(contents: Contents) -> Section | None:
    """Return the curves of all pre-training runs; None without any."""
    runs = contents.pretraining
    curves = {name: run.result.get("curve") or [] for name, run in runs.items()}
    methods = {name: run.result.get("method") or "unknown method" for name, run in runs.items()}
    wanted = [(title, key, [*runs]) for key, title in SHARED.items()]
    wanted += [
        (f"Loss of {method}", "loss", [name for name in runs if methods[name] == method])
        for method in dict.fromkeys(methods.values())
    ]
    charts = []
    for title, key, names in wanted:
        by_epoch = all("epoch" in point for name in names for point in curves[name])
        place = "epoch" if by_epoch else "step"
        found = {name: gathered([curves[name]], place, key) for name in names}
        if found := {name: points for name, points in found.items() if points}:
            spec = line_chart(found, contents.series, place, "loss" if key == "loss" else title)
            rows = [(name, methods[name], *ends(points)) for name, points in found.items()]
            about = f"Lines over the {place}s. " + "; ".join(f"{row[0]} ends at {row[-1]}" for row in rows)
            charts.append(figure(f"pretraining-{len(charts)}", spec, title, about, ("Run", "Method", *ENDS), rows))
    if not charts:
        return None
    intro = (
        "k-NN accuracy should rise. A feature_std near 0 means that the features have collapsed. "
        "Losses of different methods cannot be compared."
    )
    body = fill("charts.html.j2", charts=charts, legend=legend([*runs], contents.series))
    return Section("pretraining", "Pre-training", intro, body, script=SCRIPT)
