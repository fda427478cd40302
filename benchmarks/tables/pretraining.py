"""What a row was pre-trained with, from the folder of its pre-training run; rows that differ in the seed alone joined."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.tables.collected import Entry, Group
from pixbench.errors import UserError
from pixbench.paths import CONFIGS
from transfer.protocols import leaves

PROJECT = CONFIGS.parent
SEED = "seed"
WITHOUT_EFFECT = re.compile(
    r"out|data\.(root|workers|cache|index)|log\..*|log_every|keep_\w+|profile|stop_after|.*_timeout"
)
"""Pre-training settings that change no weight."""
Settings = dict[str, Any]


def settings_of(run: Mapping[str, Any]) -> Settings | None:
    """Return the pre-training settings behind a result by their dotted keys; None if their folder is not there.

    It is the folder that the result names, or that of the checkpoint that it started from or that was converted for it. A
    relative path (of the zoo, of the study) is looked for in the current folder, then in the project.
    """
    named = [*_folders(run.get("weights") or {})]
    for folder in (*named, *(PROJECT / folder for folder in named)):
        with suppress(OSError, ValueError, yaml.YAMLError):
            content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            if isinstance(content, dict) and "method" in content:
                return dict(leaves(content))
    return None


def _folders(weights: Mapping[str, Any]) -> Iterator[Path]:
    if named := (weights.get("pretraining") or {}).get("out"):
        yield Path(named)
    if path := weights.get("path"):
        yield Path(path).parent
        with suppress(OSError, ValueError, LookupError, TypeError):
            record = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))  # of `pixbench convert`
            yield Path(record["source"]["file"]).parent


def row_settings(group: Group, label: str) -> Settings | None:
    """Return the pre-training settings of a row; None if they are not known."""
    runs = (run for entry in group.rows[label].values() for run in entry.runs)
    return next((found for run in runs if (found := settings_of(run)) is not None), None)


def differing(rows: Mapping[str, Settings], known: Iterable[str] = ()) -> dict[str, list[Any]]:
    """Return setting -> its values, for those that differ between rows, except ``known``, the seed and what changes nothing."""
    keys = dict.fromkeys(key for settings in rows.values() for key in settings)
    wanted = [key for key in keys if key not in {*known, SEED} and not WITHOUT_EFFECT.fullmatch(key)]
    found = {key: [settings.get(key, "(not set)") for settings in rows.values()] for key in wanted}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def merged(group: Group, rows: Mapping[str, list[str]], settings: Mapping[str, Settings]) -> Group:
    """Return ``group`` with the rows of each list of labels as one row: new label -> labels.

    Raises:
        UserError: two of them were pre-trained with the same seed.
    """
    found: dict[str, Any] = {}
    for name, labels in rows.items():
        if len(labels) == 1:
            found[name] = group.rows[labels[0]]
            continue
        seeds = {label: settings[label].get(SEED) for label in labels}
        for place, label in enumerate(labels):
            seed = seeds[label]
            if other := next((one for one in labels[place + 1 :] if seeds[one] == seed), None):
                raise UserError(
                    f"{label!r} and {other!r} were pre-trained with the same settings and seed {seed}; a seed counts once: "
                    "leave one of their folders out"
                )
        for label in labels:
            for task, entry in group.rows[label].items():
                runs = [{**run, "joined": seeds[label]} for run in entry.runs]
                joint = found.setdefault(name, {}).setdefault(task, Entry())
                joint.runs.extend(runs)
                joint.paths.extend(entry.paths)
    return replace(group, rows=found)


def joined(group: Group) -> Group:
    """Return ``group`` with rows joined whose pre-training differs in the seed alone."""
    settings = {label: found for label in group.rows if (found := row_settings(group, label)) is not None}
    families: list[list[str]] = []
    for label in group.rows:
        same = (
            family
            for family in families
            if label in settings
            and family[0] in settings
            and not differing({"": settings[family[0]], label: settings[label]})
        )
        if (family := next(same, None)) is not None:
            family.append(label)
        else:
            families.append([label])
    return merged(group, {_name(family, group): family for family in families}, settings)


def _name(labels: list[str], group: Group) -> str:
    """Return what labels such as pixpro_s0 and pixpro_s1 have in common."""
    if len(labels) == 1:
        return labels[0]
    name = re.sub(r"[ _.-]*(s|seed)?[ _.-]*$", "", _beginning(labels))
    return name if name and name not in group.rows else " + ".join(labels)


def _beginning(labels: list[str]) -> str:
    return "".join(
        letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*labels, strict=False))
    )
