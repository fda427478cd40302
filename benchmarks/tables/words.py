"""The sentences above and below a comparison table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.statistics.comparisons import TOO_SMALL, Verdict
from benchmarks.statistics.intervals import over_seeds
from benchmarks.tables.collected import Group, Task
from benchmarks.tables.notes import notes_on
from benchmarks.tables.options import Column
from benchmarks.tables.over_images import over_images_of

HEADINGS = {"transfer": "Measured", "frozen": "Measured with frozen backbones"}
MINI = {
    "transfer": "not the published data, but small pictures, usually generated ones; a narrow backbone and short schedules",
    "frozen": "not the published data, but small pictures, usually generated ones; less memory, fewer clusters or iterations",
}


def introduction(
    group: Group, heads: Sequence[Column], baseline: str | None, grouped: bool, interval: str
) -> tuple[str, str, str]:
    """Return title, warning and introduction."""
    entries = sorted((e for found in group.rows.values() for e in found.values()), key=lambda entry: len(entry.runs))
    few, most = entries[0].seeds, entries[-1].seeds
    seeds = few if few == most else f"{few} to {most}"
    several = any(over_seeds(entry.samples(next(iter(entry.runs[0]["metrics"])))).n > 1 for entry in entries)
    about = f"n = {seeds}."
    if interval == "images":
        about = f"Mean ± standard deviation over seeds [95 % interval over the images of the test set], {about}"
    elif several:
        about = f"Mean ± standard deviation [95 % interval] over seeds, {about}"
    if baseline:
        about += (
            f" Compared with {group.title(baseline)}: ↑ higher, ↓ lower, ≈ within noise, ? n too small to say (t tests, Holm's "
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
        f"{small[0].upper()}{small[1:]}. Differences between rows hold at this size alone. {about}",
    )


def remarks(
    group: Group,
    heads: Sequence[Column],
    against: dict[tuple[Task, str], dict[str, Verdict]],
    marks: bool,
    interval: str,
) -> Iterator[str]:
    """Yield what else a reader must know: about the rows, why nothing is said about differences, and what is not shown.

    Args:
        group: the results.
        heads: the columns.
        against: column -> label -> comparison with the baseline.
        marks: whether the cells have marks.
        interval: of what the intervals are.
    """
    yield from notes_on(group)
    yield from _no_marks(group, against, marks)
    yield from _no_interval(group, heads) if interval == "images" else ()
    yield from _not_shown(group, heads)


def _no_marks(group: Group, against: dict[tuple[Task, str], dict[str, Verdict]], marks: bool) -> Iterator[str]:
    found = [verdict for column in against.values() for verdict in column.values()]
    reasons = dict.fromkeys(verdict.comparison.reason for verdict in found if verdict.mark == TOO_SMALL)
    if found and not marks:
        yield f"which differences are noise is unknown, because {'; '.join(reasons)}. Bold is the largest mean, no more"
    elif reasons:
        yield f"?: {'; '.join(reasons)}"
    runs = [run for entries in group.rows.values() for entry in entries.values() for run in entry.runs]
    if marks and any(run.get("weights") and "joined" not in run for run in runs):
        yield (
            "rows with weights are one pre-training run each: intervals and marks hold for these runs, not for their methods, "
            "which need several pre-training seeds (`--join-seeds`)"
        )


def _no_interval(group: Group, heads: Sequence[Column]) -> Iterator[str]:
    """Yield why cells have no interval over images, and which columns they are in."""
    found: dict[str, dict[str, None]] = {}
    for entries in group.rows.values():
        for task, metric, head in heads:
            if task in entries and (reason := over_images_of(entries[task], metric).reason):
                found.setdefault(reason, {})[head] = None
    for reason, names in found.items():
        yield f"no interval over images: {reason} ({', '.join(names)})"


def _not_shown(group: Group, heads: Sequence[Column]) -> list[str]:
    """Return a sentence on the metrics that the results hold and that are in no column, if there are any."""
    shown = {(task, metric) for task, metric, _ in heads}
    names: dict[str, list[str]] = {}
    for task in group.tasks():
        if left := ", ".join(metric for metric in group.measured(task) if (task, metric) not in shown):
            names.setdefault(left, []).append(task.protocol + task.own)
    found = "; ".join(f"{left} of {', '.join(tasks)}" for left, tasks in names.items())
    return [f"also measured, but not shown: {found} (`pixbench table --metrics all` shows them)"] if found else []
