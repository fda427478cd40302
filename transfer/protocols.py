"""What a transfer protocol is, and the table of those there are (`configs/protocols/FRAMEWORK.yaml`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pixbench.errors import UserError, did_you_mean
from pixbench.paths import CONFIGS

SCALES = ("paper", "mini")
FRAMEWORKS = ("detectron2", "mmseg")
NOT_SET = "(not set)"


@dataclass(frozen=True)
class Protocol:
    """One published way to fine-tune and to measure."""

    name: str
    title: str
    framework: str
    """One of `FRAMEWORKS`."""
    config: Path
    """The framework's own config file, holding the published values."""
    weights_framework: str
    """How the framework's model names the backbone: a key of `transfer.weights.frameworks.FRAMEWORKS`."""
    datasets: tuple[str, ...]
    """Data sets that must be below the data root: keys of `configs/data.yaml`."""
    metrics: dict[str, str]
    """Our name of each reported metric -> the name the framework's evaluator gives it."""
    source: str
    """Where the published values were read."""
    columns: dict[str, str] = field(default_factory=dict)
    """Those of our metrics that a comparison table shows -> the head of their column."""
    cost: dict[str, Any] = field(default_factory=dict)
    """What a run takes: "seconds" an iteration on "gpus" ("8 V100"), "iterations", and the "source" of the seconds."""
    mini: dict[str, Any] = field(default_factory=dict)
    """Config keys and the values they take at mini scale: sizes, iterations and width only."""

    @property
    def gpu_hours(self) -> float | None:
        if not self.cost:
            return None
        return float(self.cost["seconds"] * self.cost["iterations"] * int(str(self.cost["gpus"]).split()[0]) / 3600)


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
    raise UserError(f"there is no protocol {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})")


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys of nested dicts, and of lists that hold dicts (their elements by number), with the values there."""
    if isinstance(config, list) and any(isinstance(value, dict) for value in config):
        config = dict(enumerate(config))
    if not isinstance(config, dict):
        yield prefix, config
        return
    for key, value in config.items():
        yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> the values of two resolved configs, where they differ; `NOT_SET` where one has no such key."""
    left, right = dict(leaves(one)), dict(leaves(other))
    pairs = {key: (left.get(key, NOT_SET), right.get(key, NOT_SET)) for key in {**left, **right}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
