"""One transfer run as data: what to run, on what, where to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.protocols import Protocol


@dataclass(frozen=True)
class TransferJob:
    protocol: Protocol
    data_root: Path
    out: Path
    weights: Path | None = None
    """Any file `transfer.weights.load` reads; None starts from random weights."""
    scale: str = "paper"
    seed: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    """Further config keys set by the user, in the framework's own dotted form; they win over the mini overrides."""

    @property
    def all_overrides(self) -> dict[str, Any]:
        """Everything that differs from the published config file, in the order applied."""
        return {**(self.protocol.mini if self.scale == "mini" else {}), **self.overrides}


@dataclass(frozen=True)
class Outcome:
    """What a framework's runner hands back."""

    metrics: dict[str, float]
    """Under the framework's names; may be NaN."""
    config: dict[str, Any]
    """The resolved config, plain data."""
    iterations: int
