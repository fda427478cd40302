"""The numbers of each class under one protocol: a line for each class, a column for each row of results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.tables.collected import Group, Task
from benchmarks.tables.heads import check_heads
from benchmarks.tables.options import Options
from benchmarks.tables.table import Cell, Document, Head, Table
from pixbench.errors import UserError


def per_class(group: Group, task: Task, options: Options) -> Document:
    """Return a table of the first metric of ``task`` that was measured for each class.

    Raises:
        UserError: no result has numbers of classes, or the rows have different heads.
    """
    check_heads(group, task)
    entries = {label: entry for label in options.ordered([*group.rows]) if (entry := group.rows[label].get(task))}
    runs = [run for entry in entries.values() for run in entry.runs]
    metric = next((name for name in task.about.metrics if any(name in _classes(run) for run in runs)), None)
    if metric is None:
        raise UserError(f"no result of {task.protocol} at {group.scale} scale has numbers of single classes")
    names = list(dict.fromkeys(name for run in runs for name in _classes(run).get(metric, {})))
    body, records = [], []
    for name in names:
        line = [Cell(name)]
        for label, entry in entries.items():
            held = [_classes(run).get(metric, {}).get(name) for run in entry.runs]
            found = [value for value in held if value is not None and not math.isnan(value)]
            mean = float(np.mean(found)) if found else None
            spread = float(np.std(found, ddof=1)) if len(found) > 1 else None
            text = task.about.written(metric, mean) if found else "–"
            line.append(Cell(text + (f" ± {task.about.written(metric, spread)}" if spread is not None else "")))
            about = {"scale": group.scale, "protocol": task.protocol, "metric": metric, "label": label}
            records.append({**about, "class": name, "mean": mean, "std": spread, "n": len(found)})
        body.append(line)
    heads = [Head("Class"), *(Head(group.title(label)) for label in entries)]
    title = f"{task.protocol}{task.own}, {group.scale} scale: {metric} of each class"
    intro = "Mean ± standard deviation over seeds; – where the test set has no such class."
    return Document(f"{metric} of each class", [Table(title, heads, body, intro=intro)], records)


def _classes(run: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return metric -> class -> number."""
    found: dict[str, dict[str, float | None]] = run.get("per_class") or {}
    return found
