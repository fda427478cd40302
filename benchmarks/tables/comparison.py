"""The comparison table in the form of the paper's Table 1: a line for each row, a column for each metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.published import published
from benchmarks.statistics.comparisons import TOO_SMALL, Verdict, compare, verdicts
from benchmarks.statistics.intervals import over_seeds
from benchmarks.tables.collected import Entry, Group, Task, columns
from benchmarks.tables.footnotes import UNDEFINED, Footnotes
from benchmarks.tables.heads import check_heads
from benchmarks.tables.notes import notes_on
from benchmarks.tables.table import Cell, Head, Table, mark_best
from pixbench.errors import UserError, did_you_mean, listed
from transfer.protocols import KINDS

HEADINGS = {"transfer": "Measured", "frozen": "Measured with frozen backbones"}
MINI = {
    "transfer": "small pictures, a narrow backbone and short schedules",
    "frozen": "small pictures, and less memory, fewer clusters or fewer iterations than published",
}
LABELS = "Pre-training"
"""Heading of the labels."""
NO_BASELINE = "none"
USUAL_BASELINE = "random"
Which = Literal["first", "table", "all"]
"""Metrics to show: the first of each protocol, those of its tables, or all that the results hold."""
Column = tuple[Task, str, str]
"""(task, metric, heading)."""


@dataclass(frozen=True)
class Options:
    """What a user chooses about comparison tables."""

    order: Sequence[str] = ()
    """Labels of the rows that come first."""
    baseline: str | None = None
    """Label of the row that the others are compared with; None for `USUAL_BASELINE` if there is such a row."""
    metrics: Which = "table"
    full: bool = False
    """Whether all deviations are listed word by word."""

    def ordered(self, labels: Sequence[str]) -> list[str]:
        """Return ``labels`` with those of ``order`` first."""
        return [label for label in self.order if label in labels] + [x for x in labels if x not in self.order]

    def baseline_of(self, labels: Sequence[str]) -> str | None:
        """Return the label of the baseline among ``labels``, if there is one."""
        wanted = self.baseline or USUAL_BASELINE
        return wanted if wanted in labels and len(labels) > 1 else None

    def check(self, labels: Sequence[str]) -> None:
        """Raise UserError if there is no row of a label that the user gave."""
        for label in (*self.order, *([self.baseline] if self.baseline not in (None, NO_BASELINE) else [])):
            if label not in labels:
                hint = did_you_mean(str(label), labels)
                raise UserError(f"there is no row {label!r} in these results{hint} (rows: {listed(labels)})")


def chosen_columns(group: Group, which: Which) -> list[Column]:
    """Return the columns of a group."""
    found = columns(group.tasks(), group.measured if which == "all" else lambda _: ())
    first = {task: metric for task, metric, _ in reversed(found)}
    return [column for column in found if which != "first" or first[column[0]] == column[1]]


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
            line.append(_cell(group, label, task, metric, notes, shared[task], verdict))
            numbers.append(
                mean if entry.runs and not math.isnan(mean := over_seeds(entry.samples(metric)).mean) else None
            )
        body.append(line)
        values.append(numbers)
    directed = [place for place, (task, metric, _) in enumerate(heads, 1) if metric not in task.about.plain]
    remarks = [*notes_on(group), *_reasons(group, against, marks), *_not_shown(group, heads)]
    title, warning, intro = _words(group, heads, baseline if marks else None, grouped)
    return Table(
        title,
        [Head(LABELS), *above],
        mark_best(body, values, directed),
        warning,
        intro,
        ([("Notes", remarks)] if remarks else []) + notes.sections(),
        notes.appendix(),
    )


def _cell(
    group: Group,
    label: str,
    task: Task,
    metric: str,
    notes: Footnotes,
    shared: tuple[str, ...],
    verdict: Verdict | None,
) -> Cell:
    entry = group.rows[label].get(task)
    if entry is None:
        return Cell("–")
    found, letters = over_seeds(entry.samples(metric)), tuple[str, ...]()
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


def _words(group: Group, heads: Sequence[Column], baseline: str | None, grouped: bool) -> tuple[str, str, str]:
    """Return title, warning and introduction."""
    counts = sorted({entry.seeds for entries in group.rows.values() for entry in entries.values()})
    few, most = counts[0], counts[-1]
    seeds = few if few == most else f"{few} to {most}"
    entries = [entry for entries in group.rows.values() for entry in entries.values()]
    several = any(over_seeds(entry.samples(next(iter(entry.runs[0]["metrics"])))).n > 1 for entry in entries)
    about = f"n = {seeds}."
    if several:
        about = f"Mean ± standard deviation [95 % interval] over seeds, {about}"
    if baseline:
        about += (
            f" Beside {group.title(baseline)}: ↑ higher, ↓ lower, ≈ within noise, ? n too small to say (t tests, Holm's "
            "correction in each column; `docs/statistics.md`)."
        )
    heading = HEADINGS["transfer" if grouped else group.kind]
    if group.scale == "paper":
        beside = " (published and difference in brackets)" if any(not task.classes for task, _, _ in heads) else ""
        return f"{heading} at full scale{beside}", "", about
    small = MINI["transfer" if grouped else group.kind]
    warning = "Not comparable with any published number"
    return (
        f"{heading} at {group.scale} scale",
        warning,
        f"{small[0].upper()}{small[1:]}; it shows that the whole path runs. {about}",
    )


def _reasons(group: Group, against: dict[tuple[Task, str], dict[str, Verdict]], marks: bool) -> Iterator[str]:
    """Yield why nothing is said about differences, in cells or in the whole table, and what the noise is of."""
    found = [verdict for column in against.values() for verdict in column.values()]
    reasons = dict.fromkeys(verdict.comparison.reason for verdict in found if verdict.mark == TOO_SMALL)
    if found and not marks:
        yield f"which differences are noise: {'; '.join(reasons)}"
    elif reasons:
        yield f"?: {'; '.join(reasons)}"
    runs = [run for entries in group.rows.values() for entry in entries.values() for run in entry.runs]
    if marks and any(run.get("weights") and "joined" not in run for run in runs):
        yield (
            "rows with weights are one pre-training run each: intervals and marks hold for these runs, not for their methods, "
            "which need several pre-training seeds (`--join-seeds`)"
        )


def _not_shown(group: Group, heads: Sequence[Column]) -> list[str]:
    """Return a sentence on the metrics that the results hold and that are in no column, if there are any."""
    shown = {(task, metric) for task, metric, _ in heads}
    names: dict[str, list[str]] = {}
    for task in group.tasks():
        if left := ", ".join(metric for metric in group.measured(task) if (task, metric) not in shown):
            names.setdefault(left, []).append(task.protocol + task.own)
    found = "; ".join(f"{left} of {', '.join(tasks)}" for left, tasks in names.items())
    return [f"also measured, but not shown: {found} (`pixbench table --metrics all` shows them)"] if found else []


def _shared_deviations(group: Group, task: Task) -> tuple[str, ...]:
    """Return the deviations of a column if all its entries have the same; else none, and each entry gets its own mark."""
    found = {entries[task].deviations for entries in group.rows.values() if task in entries}
    return found.pop() if len(found) == 1 else ()
