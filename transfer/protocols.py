"""What a transfer protocol is, and the table of those there are (`configs/protocols/FRAMEWORK.yaml`)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SCALES = ("paper", "mini")
FRAMEWORKS = ("detectron2", "mmseg")


@dataclass(frozen=True)
class Protocol:
    """One published way to fine-tune and to measure."""

    name: str
    title: str
    framework: str
    """One of `FRAMEWORKS`."""
    config: Path
    """The framework's own config file, holding the published values."""
    layout: str
    """How the framework's model names the trunk: a key of `transfer.weights.layouts.LAYOUTS`."""
    datasets: tuple[str, ...]
    """Folders below the data root that must be there."""
    metrics: dict[str, str]
    """Our name of each reported metric -> the name the framework's evaluator gives it."""
    source: str
    """Where the published values were read."""
    columns: dict[str, str] = field(default_factory=dict)
    """Those of our metrics that a comparison table shows -> the head of their column."""
    mini: dict[str, Any] = field(default_factory=dict)
    """Config keys and the values they take at mini scale: sizes, iterations and width only."""


@cache
def protocols() -> dict[str, Protocol]:
    return {p.name: p for framework in FRAMEWORKS for p in _read_table(framework)}


def table_of(framework: str) -> Path:
    return CONFIGS / "protocols" / f"{framework}.yaml"


def _read_table(framework: str) -> list[Protocol]:
    table = yaml.safe_load(table_of(framework).read_text(encoding="utf-8"))
    shared = table.pop("mini")
    return [
        Protocol(
            **{
                **entry,
                "name": name,
                "framework": framework,
                "config": CONFIGS / entry["config"],
                "datasets": tuple(entry["datasets"]),
                "mini": {**shared, **entry.get("mini", {})},
            }
        )
        for name, entry in table.items()
    ]


def find_protocol(name: str) -> Protocol:
    known = protocols()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UserError(f"there is no protocol {name!r}{hint} Known: {', '.join(known)}")
