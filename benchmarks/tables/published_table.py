"""The published numbers in a table of their own."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.published import Published, published
from benchmarks.tables.collected import Task, columns
from benchmarks.tables.comparison import LABELS
from benchmarks.tables.options import Which
from benchmarks.tables.table import Cell, Head, Table
from transfer.protocols import protocols

PUBLISHED = {"transfer": "", "frozen": "frozen backbones, "}


def published_table(names: Iterable[str], kind: str, which: Which = "table") -> Table | None:
    """Return a table with the published numbers of these protocols of one kind and their sources; None without any."""
    heads = columns([Task(name) for name in names])
    if which == "first":
        first = {task: metric for task, metric, _ in reversed(heads)}
        heads = [column for column in heads if first[column[0]] == column[1]]
    rows = [row for row in published().values() if any(task.protocol in row.values for task, _, _ in heads)]
    if not rows:
        return None
    body = [[Cell(row.title), *(_cell(row, task.protocol, metric) for task, metric, _ in heads)] for row in rows]
    used = {row.sources[task.protocol] for row in rows for task, _, _ in heads if task.protocol in row.sources}
    lines = [f"[{index}] {text}" for index, text in enumerate(_all_sources(), 1) if text in used]
    title = f"Published, {PUBLISHED[kind]}full scale"
    return Table(title, [Head(LABELS), *(Head(head) for _, _, head in heads)], body, sections=[("Sources", lines)])


def _all_sources() -> list[str]:
    return list(dict.fromkeys(text for row in published().values() for text in row.sources.values()))


def _cell(row: Published, protocol: str, metric: str) -> Cell:
    value = row.values.get(protocol, {}).get(metric)
    if value is None:
        return Cell("–")
    source = _all_sources().index(row.sources[protocol]) + 1
    return Cell(protocols()[protocol].written(metric, value), notes=(str(source),))
