"""Refuse a column whose rows were measured with different heads."""

from __future__ import annotations

from typing import Any

from benchmarks.tables.collected import Group, Task
from pixbench.errors import UserError
from transfer.protocols import leaves
from transfer.run_folder import short

HEAD = (
    *("MODEL.META_ARCHITECTURE", "MODEL.ROI_HEADS.NAME", "MODEL.ROI_BOX_HEAD.NAME", "MODEL.ROI_BOX_HEAD.NUM_CONV"),
    *("MODEL.ROI_BOX_HEAD.NUM_FC", "MODEL.ROI_BOX_HEAD.NORM", "model.decode_head.type", "model.decode_head.num_convs"),
)
"""Settings that make another head: numbers of different heads are published as different protocols."""


def check_heads(group: Group, task: Task) -> None:
    """Raise UserError if rows of ``task`` have different heads; the message lists what differs."""
    first: tuple[str, dict[str, Any]] | None = None
    for label, entries in group.rows.items():
        for run in entries[task].runs if task in entries else ():
            settings = dict(leaves(run.get("config") or {}))
            head = {key: settings[key] for key in HEAD if key in settings}
            if not head:
                continue
            before, then = first = first or (label, head)
            differ = [
                f"{key} {short(head.get(key))} instead of {short(then.get(key))}"
                for key in HEAD
                if head.get(key) != then.get(key)
            ]
            if differ:
                raise UserError(
                    f"{label!r} and {before!r} of {task.protocol} at {group.scale} scale have different heads "
                    f"({'; '.join(differ)}), so they cannot stand in one column; make a table of each, from folders of their own"
                )
