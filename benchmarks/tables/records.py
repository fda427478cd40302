"""All numbers of comparison tables, one in each record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.published import published
from benchmarks.statistics.intervals import over_seeds
from benchmarks.tables.collected import Group
from benchmarks.tables.comparison import compared, known_beside
from benchmarks.tables.options import Options
from benchmarks.tables.over_images import over_images_of
from transfer.protocols import KINDS


def records(groups: Iterable[Group], options: Options) -> list[dict[str, Any]]:
    """Return a record for each row, protocol and metric: measured values, their comparison, and at full scale those published.

    The mean of an undefined metric is None, and "undefined" says why.
    """
    return [record for group in groups for record in _of_group(group, options)]


def _of_group(group: Group, options: Options) -> Iterator[dict[str, Any]]:
    labels = [*group.rows]
    baseline = options.baseline_of(options.ordered(labels))
    for task in group.tasks():
        for metric in task.about.metrics:
            against = compared(group, task, metric, baseline) if metric in group.measured(task) else {}
            for label in labels:
                entry = group.rows[label].get(task)
                if entry is None or (task.classes and not any(metric in run["metrics"] for run in entry.runs)):
                    continue  # it is not defined for a user's own classes
                reason, images = entry.undefined(metric), options.interval == "images"
                found = over_images_of(entry, metric) if images else over_seeds(entry.samples(metric))
                known = known_beside(group, label, task) or {}
                verdict = against.get(label)
                test = verdict.comparison if verdict else None
                yield {
                    **{"scale": group.scale, "label": label, "protocol": task.protocol, "metric": metric},
                    **{"mean": None if reason else found.mean, "std": None if reason else found.std},
                    **{"seeds": len(entry.runs), "published": known.get(metric)},
                    "source": published()[label].sources.get(task.protocol, "") if metric in known else "",
                    **{"deviations": [*entry.deviations], "classes": "; ".join(task.classes)},
                    **{"kind": KINDS[task.about.kind], "undefined": reason},
                    **{"n": found.n, "low": found.low, "high": found.high, "baseline": baseline if verdict else ""},
                    "interval_over": "" if found.low is None else options.interval,
                    **{"difference": _number(test.difference if test else None), "difference_low": test and test.low},
                    **{"difference_high": test and test.high, "test": test.test if test else ""},
                    **{"p": test and test.p, "p_holm": verdict and verdict.p, "effect": test and test.effect},
                    "mark": verdict.mark if verdict else "",
                }


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
