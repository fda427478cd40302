"""One transfer run as data: what to run, on what, where to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.protocols import Protocol

FREEZES = ("none", "backbone")


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
    freeze: str = "none"
    """One of `FREEZES`: "backbone" keeps the backbone as it was loaded, its BatchNorm in evaluation mode."""
    batch: int | None = None
    """Images a batch, all processes together; everything that hangs on it moves too (`transfer.batch_scaling`)."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after another; the gradients are averaged."""
    scaling: dict[str, Any] = field(default_factory=dict)
    """The overrides that ``batch`` comes down to; `transfer.run` fills it in."""

    @property
    def all_overrides(self) -> dict[str, Any]:
        """Everything that differs from the published config file, in the order applied."""
        return {**self.sizes, **self.scaling, **self.overrides}

    @property
    def sizes(self) -> dict[str, Any]:
        """The overrides of the scale."""
        return self.protocol.mini if self.scale == "mini" else {}


@dataclass(frozen=True)
class Outcome:
    """What a framework's runner hands back."""

    metrics: dict[str, float]
    """Under the framework's names; may be NaN."""
    config: dict[str, Any]
    """The resolved config, plain data."""
    iterations: int
    deviations: tuple[str, ...] = ()
    """What differs from the protocol for a reason of this machine's, one sentence each."""
