"""An ablation table: a line for each value of a pre-training setting, all others equal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.tables.collected import Group
from benchmarks.tables.pretraining import differing, merged, row_settings
from pixbench.errors import UserError, did_you_mean, listed
from transfer.run_folder import short


def ablation(group: Group, fields: Sequence[str], labels: Sequence[str] = ()) -> Group:
    """Return ``group`` with a row for each combination of values of ``fields``, over all pre-training seeds.

    Args:
        group: results of one scale and kind.
        fields: dotted pre-training settings, such as "method.gamma".
        labels: rows to use; empty for all whose pre-training settings are known.

    Raises:
        UserError: there is no such setting, its values are all equal, or the rows differ in others too.
    """
    rows = labels or [*group.rows]
    settings = {label: found for label in rows if (found := row_settings(group, label)) is not None}
    known = dict.fromkeys(key for found in settings.values() for key in found)
    if not settings:
        raise UserError(
            f"the pre-training settings of {listed(rows)} are not known: the folders of their pre-training runs, with "
            "config.yaml, must be where they were"
        )
    for field in fields:
        if field not in known:
            raise UserError(f"{field} is no pre-training setting of these rows{did_you_mean(field, known)}")
    if others := differing(settings, fields):
        lines = "; ".join(f"{key} ({', '.join(dict.fromkeys(map(short, values)))})" for key, values in others.items())
        raise UserError(
            f"these rows differ in more than {', '.join(fields)}: {lines}; name those settings in --by too, or choose rows with "
            f"--rows (rows: {listed(settings)})"
        )
    if not differing(settings):
        raise UserError(f"{', '.join(fields)} is the same in all these rows: {listed(settings)}")
    values = {label: tuple(found.get(field, "(not set)") for field in fields) for label, found in settings.items()}
    order = sorted(dict.fromkeys(values.values()), key=_natural)
    named = {_named(fields, found): [label for label in values if values[label] == found] for found in order}
    return merged(replace(group, rows={label: group.rows[label] for label in settings}), named, settings)


def _named(fields: Sequence[str], values: Sequence[Any]) -> str:
    written = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(f"{field} {value}" for field, value in zip(fields, written, strict=True))


def _natural(values: Sequence[Any]) -> list[tuple[bool, float, str]]:
    numbers = [re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", str(value)) for value in values]
    return [(not n, float(n[0]) if n else 0.0, str(value)) for n, value in zip(numbers, values, strict=True)]
