"""The transfer protocols, as defined in `configs/protocols/FRAMEWORK.yaml`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pixbench.errors import UserError, did_you_mean, listed
from pixbench.paths import CONFIGS

SCALES = ("paper", "mini")
PROTOCOL_FRAMEWORKS = ("detectron2", "mmseg", "frozen")
KINDS = {"transfer": "fine-tuned", "frozen": "frozen"}
"""Kind of a result -> what is done with the backbone. Results of different kinds stand in different tables."""
NOT_SET = "(not set)"
NEUTRAL = (
    *("DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD", "MODEL.DEVICE"),
    *("num_workers", "persistent_workers", "checkpoint.interval", "val_interval"),
)
"""Endings of the config keys that change no metric: overriding them is not a deviation."""


@dataclass(frozen=True)
class Protocol:
    """One published way to evaluate a backbone, by fine-tuning or frozen."""

    name: str
    title: str
    framework: str
    """One of `PROTOCOL_FRAMEWORKS`."""
    config: Path
    """Config file in the framework's own format, with the published values."""
    datasets: tuple[str, ...]
    """Data sets that are needed below the data root: keys of `configs/data.yaml`."""
    metrics: dict[str, str]
    """Our name of each reported metric -> its name in the framework's evaluator."""
    source: str
    """Where the published values come from."""
    weights_framework: str = ""
    """How the model names the parameters of its backbone: a key of `transfer.weights.frameworks.FRAMEWORKS`. Empty: the
    protocol uses this project's own network, so no conversion is needed."""
    frozen: bool = False
    """Whether the backbone is not trained. Protocols of the framework "frozen" never train it."""
    keeps_features: bool = False
    """Whether its runs keep the features of a few test pictures, reduced, to be shown (`transfer.frozen.samples`)."""
    networks: tuple[str, ...] = ()
    """Patterns of the names of the networks that it was published for, such as "timm:swin_tiny_*"; empty for a ResNet, or a ViT
    that is recognised."""
    columns: dict[str, str] = field(default_factory=dict)
    """Each metric (our name) that a comparison table shows -> the heading of its column."""
    digits: dict[str, int] = field(default_factory=dict)
    """Metric (our name) -> digits after the point in tables and messages; 1 for those that are not named."""
    plain: tuple[str, ...] = ()
    """Metrics (our names) that are plain numbers; all others are per cent."""
    differs: tuple[str, ...] = ()
    """What differs from the public definition in every run, one sentence each; results have them among their deviations."""
    cost: dict[str, Any] = field(default_factory=dict)
    """Cost of a run: "seconds" per iteration on "gpus" ("8 V100"), "iterations", and the "source" of the seconds."""
    mini: dict[str, Any] = field(default_factory=dict)
    """Config keys and their values at mini scale: only sizes, iterations and width."""

    @property
    def kind(self) -> str:
        """Kind of its results: a key of `KINDS`."""
        return "frozen" if self.frozen or self.framework == "frozen" else "transfer"

    def written(self, metric: str, value: float | None) -> str:
        """Return the ``value`` of ``metric`` (our name) for people; "undefined" for None and NaN."""
        undefined = value is None or math.isnan(value)
        return "undefined" if undefined else f"{value:.{self.digits.get(metric, 1)}f}"

    def unit(self, metric: str) -> str:
        """Return the unit of ``metric`` (our name): "%", or "1" for a plain number."""
        return "1" if metric in self.plain else "%"

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours of a run as published; None if the cost is not known."""
        if not self.cost:
            return None
        return float(self.cost["seconds"] * self.cost["iterations"] * int(str(self.cost["gpus"]).split()[0]) / 3600)


@cache
def protocols() -> dict[str, Protocol]:
    """Return all protocols by name, in the order of their tables."""
    return {p.name: p for framework in PROTOCOL_FRAMEWORKS for p in _read_table(framework)}


def table_of(framework: str) -> Path:
    """Return the YAML file that defines the protocols of ``framework``."""
    return CONFIGS / "protocols" / f"{framework}.yaml"


def _read_table(framework: str) -> list[Protocol]:
    table = yaml.safe_load(table_of(framework).read_text(encoding="utf-8"))
    shared = table.pop("mini", {})
    return [
        Protocol(
            **{
                **entry,
                "name": name,
                "framework": framework,
                "config": CONFIGS / entry["config"],
                "datasets": tuple(entry["datasets"]),
                "networks": tuple(entry.get("networks", ())),
                "plain": tuple(entry.get("plain", ())),
                "differs": tuple(entry.get("differs", ())),
                "mini": {k: v for k, v in {**shared, **entry.get("mini", {})}.items() if v is not None},
            }
        )
        for name, entry in table.items()
    ]


def find_protocol(name: str) -> Protocol:
    """Return the protocol ``name``; raise UserError with the known names if it does not exist."""
    known = protocols()
    if name in known:
        return known[name]
    raise UserError(
        f"there is no protocol {name!r}{did_you_mean(name, known)} (known: {listed(known)}; `pixbench protocols` lists all)"
    )


def names_with(weights_framework: str) -> str:
    """Return the names of the protocols with this `Protocol.weights_framework`, for messages."""
    return ", ".join(p.name for p in protocols().values() if p.weights_framework == weights_framework)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and the values of nested dicts; elements of lists that hold dicts are named by number."""
    if isinstance(config, list) and any(isinstance(value, dict) for value in config):
        config = dict(enumerate(config))
    if not isinstance(config, dict):
        yield prefix, config
        return
    for key, value in config.items():
        yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> both values, where two resolved configs differ; `NOT_SET` stands for a missing key."""
    left, right = dict(leaves(one)), dict(leaves(other))
    pairs = {key: (left.get(key, NOT_SET), right.get(key, NOT_SET)) for key in {**left, **right}}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
