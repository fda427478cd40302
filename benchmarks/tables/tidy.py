"""All numbers as CSV, one in each line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from benchmarks.published import published
from benchmarks.tables.collected import Group, mean_std
from transfer.protocols import KINDS


def tidy_csv(groups: Iterable[Group]) -> str:
    """Return CSV with a line per row, protocol and metric: measured values and, at full scale, those published.

    The mean of an undefined metric is empty, and the last column says why.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        "scale label protocol metric mean std seeds published source deviations classes kind undefined".split()
    )
    for group in groups:
        for label, entries in group.rows.items():
            known = published().get(label) if group.scale == "paper" else None
            for task, entry in entries.items():
                for metric in task.about.metrics:
                    if task.classes and not any(metric in run["metrics"] for run in entry.runs):
                        continue  # it is not defined for a user's own classes
                    reason = entry.undefined(metric)
                    mean, spread = ("", "") if reason else mean_std(entry.values(metric))
                    beside = known and not task.classes and not any(map(known.differs, entry.runs))
                    value = known.values.get(task.protocol, {}).get(metric, "") if known and beside else ""
                    source = known.sources.get(task.protocol, "") if known and value != "" else ""
                    numbers = mean, spread, len(entry.runs), value, source, len(entry.deviations)
                    about = "; ".join(task.classes), KINDS[group.kind], reason
                    writer.writerow([group.scale, label, task.protocol, metric, *numbers, *about])
    return out.getvalue()
