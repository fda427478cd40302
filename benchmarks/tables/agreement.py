"""Do frozen and fine-tuned protocols rank the rows in the same order? Kendall's τ."""

from __future__ import annotations

import math

from benchmarks.statistics.agreement import agreement
from benchmarks.statistics.intervals import over_seeds
from benchmarks.tables.collected import Group
from benchmarks.tables.options import Column, chosen_columns
from benchmarks.tables.table import Cell, Document, Head, Table
from pixbench.errors import UserError

Means = dict[str, float]


def agreement_document(group: Group) -> Document:
    """Return a table of τ for each pair of a frozen and a fine-tuned protocol, each with its first metric.

    Args:
        group: results of one scale and of both kinds.

    Raises:
        UserError: there are not results of both kinds.
    """
    tuned, frozen = (first_columns(group, kind) for kind in ("transfer", "frozen"))
    if not tuned or not frozen:
        raise UserError(
            f"agreement needs results of fine-tuned and of frozen protocols at one scale; at {group.scale} scale there are only "
            f"{'fine-tuned' if tuned else 'frozen'} ones"
        )
    body, records, reasons = [], list[dict[str, object]](), dict[str, None]()
    for column in frozen:
        line = [Cell(column[2])]
        for other in tuned:
            one, two = both(group, column, other)
            found = agreement([*one.values()], [*two.values()])
            text = "–" if math.isnan(found.tau) else f"{found.tau:.2f}"
            ends = "" if found.low is None or found.high is None else f"{found.low:.2f}, {found.high:.2f}"
            line.append(Cell(f"{text} (n = {found.n})", ends))
            reasons |= {found.reason: None} if found.reason else {}
            about = {"scale": group.scale, "frozen": column[0].protocol, "frozen_metric": column[1]}
            about |= {"fine_tuned": other[0].protocol, "fine_tuned_metric": other[1], "rows": "; ".join(one)}
            numbers = {"tau": found.tau, "low": found.low, "high": found.high, "n": found.n, "p": found.p}
            records.append({**about, **numbers, "reason": found.reason})
        body.append(line)
    intro = "Kendall's τ of the means of the rows [95 % interval]; 1: the same order, −1: the opposite order, 0: no agreement."
    notes = [("Notes", [f"no interval: {reason}" for reason in reasons])] if reasons else []
    heads = [Head("Frozen"), *(Head(column[2], group="fine-tuned") for column in tuned)]
    title = f"Agreement of frozen with fine-tuned protocols, {group.scale} scale"
    return Document("Agreement between protocols", [Table(title, heads, body, intro=intro, sections=notes)], records)


def first_columns(group: Group, kind: str) -> list[Column]:
    """Return the columns of the first metric of each protocol of ``kind``."""
    return [column for column in chosen_columns(group, "first") if column[0].about.kind == kind]


def both(group: Group, one: Column, other: Column) -> tuple[Means, Means]:
    """Return label -> mean of two columns, of the rows that have both."""
    found: tuple[Means, Means] = {}, {}
    for label, entries in group.rows.items():
        if one[0] in entries and other[0] in entries:
            means = [over_seeds(entries[task].samples(metric)).mean for task, metric, _ in (one, other)]
            if not any(map(math.isnan, means)):
                found[0][label], found[1][label] = means
    return found
