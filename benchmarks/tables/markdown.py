"""The tables in Markdown: a line for each row, a column for each metric, footnotes for deviations."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from benchmarks.published import Published, published
from benchmarks.tables.collected import Entry, Group, Task, columns
from benchmarks.tables.notes import notes_on
from transfer.protocols import protocols

HEADINGS = {"transfer": "Measured", "frozen": "Measured with frozen backbones"}
PUBLISHED = {"transfer": "", "frozen": "frozen backbones, "}
SEEDS = {"transfer": "fine-tuning seed(s)", "frozen": "seed(s)"}
MINI = {
    "transfer": "small pictures, a narrow backbone and short schedules",
    "frozen": "small pictures, and less memory, fewer clusters or fewer iterations than published",
}
DEVIATIONS, UNDEFINED = "Deviations from the published protocols", "Undefined numbers"
"""Headings of the footnotes."""
ALL_METRICS = "--all-metrics"


class Footnotes:
    """Letters for sets of sentences; equal sets of one protocol get the same letter."""

    def __init__(self) -> None:
        self.letters: dict[tuple[str, Task, tuple[str, ...]], str] = {}

    def mark(self, task: Task, texts: tuple[str, ...], heading: str = DEVIATIONS) -> str:
        """Return the mark of ``texts``, for example " [a]"; empty if there are none."""
        if not texts:
            return ""
        index = len(self.letters)
        letter = string.ascii_lowercase[index % 26] * (1 + index // 26)
        return f" [{self.letters.setdefault((heading, task, texts), letter)}]"

    def section(self, heading: str) -> str:
        """Return the lines that explain the letters below their ``heading``; "" without any."""
        lines = "\n".join(f"- {line}" for line in self._lines(heading))
        return f"\n{heading}:\n\n{lines}\n" if lines else ""

    def _lines(self, heading: str) -> list[str]:
        """Return the lines below ``heading``; a sentence with several letters comes once, after all of its letters."""
        letters: dict[str, list[str]] = {}
        for (below, _, sentences), letter in self.letters.items():
            for text in sentences if below == heading else ():
                letters.setdefault(text, []).append(f"[{letter}]")
        texts: dict[str, list[str]] = {}
        for text, found in letters.items():
            texts.setdefault(" ".join(found), []).append(text)
        return [f"{found}: {'; '.join(texts[found])}" for found in sorted(texts, key=lambda f: (-len(f), f))]


def render(group: Group, order: Sequence[str] = (), all_metrics: bool = False) -> str:
    """Return the Markdown table of one group with footnotes; at paper scale, with published numbers in brackets."""
    heads = columns(group.tasks(), group.measured if all_metrics else lambda _: ())
    notes, body = Footnotes(), []
    shared = {task: _shared_deviations(group, task) for task, _, _ in heads}
    marks = {task: notes.mark(task, texts) for task, texts in shared.items()}
    labels = [label for label in order if label in group.rows] + [label for label in group.rows if label not in order]
    for label in labels:
        line = [group.title(label)]
        for task, metric, _ in heads:
            entry = group.rows[label].get(task, Entry())
            text = entry.text(task.about, metric)
            if reason := entry.undefined(metric):
                text += notes.mark(task, (reason,), UNDEFINED)
            if entry.deviations != shared[task]:
                text += notes.mark(task, entry.deviations)
            if group.scale == "paper" and label in published() and not task.classes:
                known = published()[label]
                if not any(map(known.differs, entry.runs)):
                    text += f" ({known.values.get(task.protocol, {}).get(metric, '–')})"
            line.append(text)
        body.append(line)
    seeds = sorted({len(entry.runs) for entries in group.rows.values() for entry in entries.values()})
    about = f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} {SEEDS[group.kind]} for each number"
    if group.scale == "paper":
        beside = " (published in brackets)" if any(not task.classes for task, _, _ in heads) else ""
        intro = f"## {HEADINGS[group.kind]} at full scale{beside}\n\nMean ± standard deviation, {about}."
    else:
        intro = (
            f"## {HEADINGS[group.kind]} at {group.scale} scale\n\n**Not comparable with any published number**: "
            f"{MINI[group.kind]}. It shows that the whole path runs. {about}."
        )
    table = _markdown(body, [head + marks[task] for task, _, head in heads])
    remarks = "".join(f"- {note}\n" for note in (*notes_on(group), *_not_shown(group, heads)))
    return (
        f"{intro}\n\n{table}\n"
        + (f"\nNotes:\n\n{remarks}" if remarks else "")
        + notes.section(UNDEFINED)
        + notes.section(DEVIATIONS)
    )


def _not_shown(group: Group, heads: Sequence[tuple[Task, str, str]]) -> list[str]:
    """Return a sentence on the metrics that the results hold and that are in no column, if there are any."""
    shown = {(task, metric) for task, metric, _ in heads}
    names: dict[str, list[str]] = {}
    for task in group.tasks():
        if left := ", ".join(metric for metric in group.measured(task) if (task, metric) not in shown):
            names.setdefault(left, []).append(task.protocol + task.own)
    listed = "; ".join(f"{left} of {', '.join(tasks)}" for left, tasks in names.items())
    return (
        [f"also measured, but not shown: {listed} (`pixbench table` shows them with `{ALL_METRICS}`)"] if listed else []
    )


def _shared_deviations(group: Group, task: Task) -> tuple[str, ...]:
    """Return the deviations of a column if all its entries have the same; else none, and each entry gets its own mark."""
    found = {entries[task].deviations for entries in group.rows.values() if task in entries}
    return found.pop() if len(found) == 1 else ()


def _markdown(body: list[list[str]], heads: list[str]) -> str:
    return tabulate(body, ["Pre-training", *heads], tablefmt="github", disable_numparse=True)


def render_published(names: Iterable[str], kind: str) -> str:
    """Return a separate table with the published numbers of these protocols of one kind and their sources; "" without any."""
    heads = columns([Task(name) for name in names])
    rows = [row for row in published().values() if any(task.protocol in row.values for task, _, _ in heads)]
    if not rows:
        return ""
    body = [[row.title, *(_published(row, task.protocol, metric) for task, metric, _ in heads)] for row in rows]
    table = _markdown(body, [head for _, _, head in heads])
    sources = {row.sources[task.protocol] for row in rows for task, _, _ in heads if task.protocol in row.sources}
    lines = "\n".join(f"- [{index}] {text}" for index, text in enumerate(_all_sources(), 1) if text in sources)
    return f"## Published, {PUBLISHED[kind]}full scale\n\n{table}\n\n{lines}\n"


def _all_sources() -> list[str]:
    return list(dict.fromkeys(text for row in published().values() for text in row.sources.values()))


def _published(row: Published, protocol: str, metric: str) -> str:
    value = row.values.get(protocol, {}).get(metric)
    return (
        "–"
        if value is None
        else f"{protocols()[protocol].written(metric, value)} [{_all_sources().index(row.sources[protocol]) + 1}]"
    )
