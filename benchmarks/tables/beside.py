"""Fine-tuned and frozen results of one scale in one table, in groups of columns."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.tables.collected import Group


def beside(groups: Sequence[Group]) -> list[Group]:
    """Return a group for each scale, with the results of both kinds. They never share a column."""
    found: dict[str, Group] = {}
    for group in groups:
        both = found.setdefault(group.scale, Group(group.scale, "transfer"))
        for label, entries in group.rows.items():
            both.rows[label] = {**both.rows.get(label, {}), **entries}
    return [*found.values()]
