"""What a reader of a table of frozen results must know besides the deviations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from benchmarks.published import title
from benchmarks.tables.collected import Group, Task

CALIBRATED = re.compile(r"BN statistics of (\d+) training pictures")
"""What `transfer.frozen.fair_random` says of a backbone."""


def notes_on(group: Group) -> list[str]:
    """Return sentences on columns with backbones of different strides, and on the statistics of random backbones."""
    notes = [note for task in group.tasks() for note in _strides(group, task)]
    return notes + [note for label in group.rows for note in _random(group, label)]


def _strides(group: Group, task: Task) -> Iterator[str]:
    rows: dict[int, list[str]] = {}
    for label in group.rows:
        for stride in dict.fromkeys(about["stride"] for about in _evaluations(group, label, task) if "stride" in about):
            rows.setdefault(stride, []).append(title(label))
    if len(rows) > 1:
        listed = "; ".join(f"{stride} pixels: {', '.join(rows[stride])}" for stride in sorted(rows))
        yield (
            f"{task.protocol}{task.own}: the backbones have cells of different sizes ({listed}), which moves the numbers by "
            "itself, more than short pre-training does"
        )


def _random(group: Group, label: str) -> Iterator[str]:
    sources = [about.get("backbone", "") for task in group.tasks() for about in _evaluations(group, label, task)]
    if counts := {int(found[1]) for source in sources if (found := CALIBRATED.search(source))}:
        least, most = min(counts), max(counts)
        number = f"{most}" if least == most else f"{least} to {most}"
        yield f"{title(label)}: random weights; the BN statistics were computed on {number} training pictures"


def _evaluations(group: Group, label: str, task: Task) -> list[dict[str, Any]]:
    entry = group.rows[label].get(task)
    return [run["evaluation"] for run in entry.runs if "evaluation" in run] if entry else []
