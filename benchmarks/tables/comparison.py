"""The comparison table in the form of the paper's Table 1: a line for each row, a column for each metric."""

from __future__ import annotations

import math

from benchmarks.published import published
from benchmarks.statistics.comparisons import Verdict, compare, verdicts
from benchmarks.statistics.intervals import over_seeds
from benchmarks.tables.collected import Entry, Group, Task
from benchmarks.tables.footnotes import UNDEFINED, Footnotes
from benchmarks.tables.heads import check_heads
from benchmarks.tables.options import Options, chosen_columns
from benchmarks.tables.over_images import over_images_of
from benchmarks.tables.table import Cell, Head, Table, mark_best
from benchmarks.tables.words import introduction, remarks
from transfer.protocols import KINDS

LABELS = "Pre-training"
"""Heading of the labels."""


def compared(group: Group, task: Task, metric: str, baseline: str | None) -> dict[str, Verdict]:
    """Return label -> comparison with the row ``baseline`` in one column; empty without it."""
    rows = {label: entries[task].samples(metric) for label, entries in group.rows.items() if task in entries}
    if baseline not in rows:
        return {}
    return verdicts({label: compare(found, rows[baseline]) for label, found in rows.items() if label != baseline})


def comparison(group: Group, options: Options, grouped: bool = False) -> Table:
    """Return the table of one group; at paper scale, with published numbers and the differences in brackets.

    Args:
        group: results of one scale and kind, or of one scale and both kinds.
        options: what the user chose.
        grouped: whether columns of fine-tuned and of frozen results stand in groups.

    Raises:
        UserError: rows of one column have different heads.
    """
    heads, notes = chosen_columns(group, options.metrics), Footnotes(group.scale)
    for task in dict.fromkeys(task for task, _, _ in heads):
        check_heads(group, task)
    labels = options.ordered([*group.rows])
    baseline = options.baseline_of(labels)
    shared = {task: _shared_deviations(group, task) for task, _, _ in heads}
    above = [
        Head(head, notes.mark(task, shared[task]), KINDS[task.about.kind] if grouped else "") for task, _, head in heads
    ]
    against = {(task, metric): compared(group, task, metric, baseline) for task, metric, _ in heads}
    marks = sum(found.p is not None for verdict in against.values() for found in verdict.values()) > 0
    body: list[list[Cell]] = []
    values: list[list[float | None]] = []
    for label in labels:
        line, numbers = [Cell(group.title(label))], list[float | None]([None])
        for task, metric, _ in heads:
            entry = group.rows[label].get(task, Entry())
            verdict = against[task, metric].get(label) if marks else None
            line.append(_cell(group, label, task, metric, notes, shared[task], verdict, options.interval == "images"))
            numbers.append(_shown(task, metric, entry) if entry.runs else None)
        body.append(line)
        values.append(numbers)
    directed = [place for place, (task, metric, _) in enumerate(heads, 1) if metric not in task.about.plain]
    notes_below = [*remarks(group, heads, against, marks, options.interval)]
    title, warning, intro = introduction(group, heads, baseline if marks else None, grouped, options.interval)
    return Table(
        title,
        [Head(LABELS), *above],
        mark_best(body, values, directed),
        warning,
        intro,
        ([("Notes", notes_below)] if notes_below else []) + notes.sections(),
        notes.appendix(),
    )


def _shown(task: Task, metric: str, entry: Entry) -> float | None:
    """Return the mean as the cell shows it, so that equal cells are equally good; None if it is undefined."""
    mean = over_seeds(entry.samples(metric)).mean
    return None if math.isnan(mean) else float(task.about.written(metric, mean))


def _cell(
    group: Group,
    label: str,
    task: Task,
    metric: str,
    notes: Footnotes,
    shared: tuple[str, ...],
    verdict: Verdict | None,
    images: bool,
) -> Cell:
    entry = group.rows[label].get(task)
    if entry is None:
        return Cell("–")
    found = over_images_of(entry, metric) if images else over_seeds(entry.samples(metric))
    letters: tuple[str, ...] = ()
    if reason := entry.undefined(metric):
        letters += notes.mark(task, (reason,), UNDEFINED)
    if entry.deviations != shared:
        letters += notes.mark(task, entry.deviations)
    text = task.about.written(metric, found.mean)
    if found.std is not None and not math.isnan(found.mean):
        text += f" ± {task.about.written(metric, found.std)}"
    ends = (
        ""
        if found.low is None or found.high is None
        else f"{task.about.written(metric, found.low)}, {task.about.written(metric, found.high)}"
    )
    beside = ""
    if (known := known_beside(group, label, task)) is not None:
        value = known.get(metric)
        beside = (
            "–"
            if value is None
            else f"{task.about.written(metric, value)}, {_signed(task, metric, found.mean - value)}"
        )
    return Cell(text, ends, verdict.mark if verdict else "", letters, beside)


def known_beside(group: Group, label: str, task: Task) -> dict[str, float] | None:
    """Return the published numbers that may stand beside those of a row; None if none may."""
    if group.scale != "paper" or label not in published() or task.classes:
        return None
    known = published()[label]
    return None if any(map(known.differs, group.rows[label][task].runs)) else known.values.get(task.protocol, {})


def _signed(task: Task, metric: str, difference: float) -> str:
    written = task.about.written(metric, difference)
    return written if math.isnan(difference) else ("−" if written.startswith("-") else "+") + written.removeprefix("-")


def _shared_deviations(group: Group, task: Task) -> tuple[str, ...]:
    """Return the deviations of a column if all its entries have the same; else none, and each entry gets its own mark."""
    found = {entries[task].deviations for entries in group.rows.values() if task in entries}
    return found.pop() if len(found) == 1 else ()
