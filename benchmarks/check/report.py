"""The table of what the jobs of a suite cost, and their sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tabulate import tabulate

from benchmarks.costs import Cost
from pretrain.data.in_flight import readable

UNKNOWN = "?"


class JobCost(NamedTuple):
    """What each of several jobs will cost that differ in their row and seed only."""

    name: str
    jobs: int = 1
    gpus: int = 1
    """GPUs of each job, on all machines."""
    memory: int | None = None
    """Bytes of each GPU; None if not known."""
    rate: float | None = None
    """Images/s that each GPU takes; None if not known."""
    host: int | None = None
    """Bytes of batches in flight on each machine; None if not known."""
    disk: int = 0
    """Bytes of the checkpoints of each job, or of the features that it computes."""
    cost: Cost | None = None
    """GPU-hours of each job; None if not known."""
    why: str = ""
    """Why they are not known."""

    @property
    def hours(self) -> float | None:
        """Hours that each job needs at least."""
        return self.cost and self.cost.gpu_hours / self.gpus


HEADERS = ("job", "GPU memory", "images/s a GPU", "host memory", "disk, all", "GPU-hours, all", "hours of one")


def table(costs: Sequence[JobCost]) -> str:
    """Return one line for each group of jobs that cost the same."""
    rows = [
        (
            cost.name + (f" × {cost.jobs}" if cost.jobs > 1 else ""),
            _known(cost.memory, readable),
            _known(cost.rate, "{:.0f}".format),
            _known(cost.host, readable),
            readable(cost.jobs * cost.disk),
            f"{cost.jobs * cost.cost.gpu_hours:.0f} {cost.cost.gpu}" if cost.cost else UNKNOWN,
            _known(cost.hours, "{:.1f}".format),
        )
        for cost in _grouped(costs)
    ]
    return tabulate(rows, HEADERS, tablefmt="plain", disable_numparse=True, colalign=("left", *["right"] * 6))


def _grouped(costs: Sequence[JobCost]) -> list[JobCost]:
    """Return ``costs`` with one entry for all rows that cost the same under a protocol."""
    groups: dict[JobCost, list[JobCost]] = {}
    for cost in costs:
        command, _, *protocol = cost.name.split("/")
        name = "/".join((command, "*", *protocol)) if protocol else cost.name
        groups.setdefault(cost._replace(name=name, jobs=0), []).append(cost)
    return [
        same[0] if len(same) == 1 else key._replace(jobs=sum(cost.jobs for cost in same))
        for key, same in groups.items()
    ]


def totals(costs: Sequence[JobCost]) -> str:
    """Return the sums, and the days that the jobs take one after another."""
    hours: dict[str, float] = defaultdict(float)
    for cost in costs:
        if cost.cost:
            hours[cost.cost.gpu] += cost.jobs * cost.cost.gpu_hours
    days = sum(cost.jobs * (cost.hours or 0) for cost in costs) / 24
    known = " and ".join(f"{count:,.0f} GPU-hours ({gpu})" for gpu, count in hours.items())
    unknown = sum(cost.jobs for cost in costs if not cost.cost)
    listed = [f"at least {known}"] if known else []
    reasons = "; ".join(dict.fromkeys(cost.why for cost in costs if not cost.cost and cost.why))
    listed += [f"{unknown} jobs of unknown GPU-hours" + (f" ({reasons})" if reasons else "")] if unknown else []
    listed += [f"{readable(sum(cost.jobs * cost.disk for cost in costs))} of checkpoints and features"]
    text = f"in all {', '.join(listed)}"
    mixed = "; hours of different GPUs are added as they are" if len(hours) > 1 else ""
    return text + (f"\none after another, each on its GPUs: at least {days:.1f} days{mixed}" if hours else "")


def _known(value: float | None, write: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else write(value)
