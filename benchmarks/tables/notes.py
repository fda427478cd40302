"""What a reader of a table must know besides the deviations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.published import published
from benchmarks.tables.collected import Group, Task

CALIBRATED = re.compile(r"BN statistics of (\d+) training pictures")
"""What `transfer.frozen.fair_random` says of a backbone."""


def notes_on(group: Group) -> list[str]:
    """Return sentences on different strides, widths and numbers of pictures, on random backbones and on other networks."""
    notes = [
        note for task in group.tasks() for about in (_strides, _widths, _pictures, _few) for note in about(group, task)
    ]
    notes += [note for label in group.rows for about in (_random, _other_network) for note in about(group, label)]
    return list(dict.fromkeys(notes))


def _strides(group: Group, task: Task) -> Iterator[str]:
    if listed := _differing(group, task, lambda about: about.get("stride"), " pixels"):
        yield (
            f"{task.protocol}{task.own}: the backbones have cells of different sizes ({listed}), which moves the numbers by "
            "itself, more than short pre-training does"
        )


def _widths(group: Group, task: Task) -> Iterator[str]:
    if listed := _differing(group, task, lambda about: (about.get("spec") or {}).get("width")):
        yield (
            f"{task.protocol}{task.own}: the backbones have different widths ({listed}; 1: as published), so they differ in more "
            "than pre-training: a wider one has more channels"
        )


def _pictures(group: Group, task: Task) -> Iterator[str]:
    if listed := _differing(group, task, _scored_pictures):
        yield (
            f"{task.protocol}{task.own}: the numbers were measured on different numbers of pictures ({listed}), so they are not "
            "comparable"
        )
    if listed := _differing(group, task, _training_pictures):
        yield f"{task.protocol}{task.own}: the rows had different numbers of training pictures ({listed})"


def _few(group: Group, task: Task) -> Iterator[str]:
    for label in group.rows:
        for found in dict.fromkeys(
            about["few_pairs"] for about in _evaluations(group, label, task) if about.get("few_pairs")
        ):
            yield f"{group.title(label)}, {task.protocol}{task.own}: {found}"


def _other_network(group: Group, label: str) -> Iterator[str]:
    if group.scale != "paper" or label not in published():
        return
    known, why = published()[label], dict[str, list[str]]()
    for task, entry in group.rows[label].items():
        if task.protocol in known.values and not task.classes:
            for found in dict.fromkeys(map(known.differs, entry.runs)):
                why.setdefault(found, []).append(task.protocol)
    for found, names in why.items():
        if found:
            yield f"{label}: the published number is not shown beside that of {', '.join(names)}: {found}"


def _scored_pictures(about: dict[str, Any]) -> int | None:
    pictures = about.get("pictures") or {}
    found: int | None = pictures.get("test", pictures.get("train"))  # discovery has no test pictures
    return found


def _training_pictures(about: dict[str, Any]) -> int | None:
    pictures = about.get("pictures") or {}
    return pictures.get("train") if "test" in pictures else None


def _differing(group: Group, task: Task, value: Callable[[dict[str, Any]], float | None], unit: str = "") -> str:
    """Return each ``value`` of the evaluations in a column with its rows; "" if there are not several. None is no value."""
    rows: dict[float, list[str]] = {}
    for label in group.rows:
        for found in dict.fromkeys(map(value, _evaluations(group, label, task))):
            if found is not None:
                rows.setdefault(found, []).append(group.title(label))
    return "; ".join(f"{found}{unit}: {', '.join(rows[found])}" for found in sorted(rows)) if len(rows) > 1 else ""


def _random(group: Group, label: str) -> Iterator[str]:
    sources = [about.get("backbone", "") for task in group.tasks() for about in _evaluations(group, label, task)]
    if counts := {int(found[1]) for source in sources if (found := CALIBRATED.search(source))}:
        least, most = min(counts), max(counts)
        number = f"{most}" if least == most else f"{least} to {most}"
        yield f"{group.title(label)}: random weights; the BN statistics were computed on {number} training pictures"


def _evaluations(group: Group, label: str, task: Task) -> list[dict[str, Any]]:
    entry = group.rows[label].get(task)
    return [run["evaluation"] for run in entry.runs if "evaluation" in run] if entry else []
