"""What a method of frozen evaluation gets, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from transfer.frozen.features import Features
from transfer.frozen.views import Views
from transfer.kept import Kept
from transfer.weights.spec import Spec


@dataclass(frozen=True)
class Split:
    """The features of a split and what is known about its pictures."""

    features: Features
    views: Views

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Run:
    """The run that a method works for."""

    seed: int
    device: torch.device
    """Where to compute."""
    out: Path
    """Run folder, for files of more than the metrics."""
    spec: Spec | None = None
    """What the backbone is, to record what a publication does with such a network. The metrics must not depend on it."""


@dataclass
class Measured:
    """The result of a method."""

    metrics: dict[str, float]
    """Metrics under the names of the method; values may be NaN."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else belongs into the record: chosen hyperparameters, number of memory patches, IoU of each class."""
    deviations: tuple[str, ...] = ()
    """Differences from the protocol that the data makes necessary, one sentence each."""
    kept: Kept = field(default_factory=Kept)
    """Values of classes and images."""
