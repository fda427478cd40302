"""What a user chooses about tables, and which columns follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.tables.collected import Group, Task, columns
from pixbench.errors import UserError, did_you_mean, listed
from transfer.protocols import KINDS

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
    interval: Literal["seeds", "images"] = "seeds"
    """Of what the 95 % intervals in the cells are."""
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
    """Return the columns of a group; those of fine-tuned results come first."""
    kinds = [*KINDS]
    tasks = sorted(group.tasks(), key=lambda task: kinds.index(task.about.kind))
    found = columns(tasks, group.measured if which == "all" else lambda _: ())
    first = {task: metric for task, metric, _ in reversed(found)}
    return [column for column in found if which != "first" or first[column[0]] == column[1]]
