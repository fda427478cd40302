"""One transfer run as plain data: the job and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from pixbench.files import sha256
from pixbench.patience import PROCESS_TIMEOUT_H
from pretrain.models.named_spec import NamedSpec
from transfer.datasets.classes import Classes
from transfer.kept import Kept
from transfer.protocols import Protocol

FREEZES = ("none", "backbone")
CACHE_GB = 100.0


@dataclass(frozen=True)
class TransferJob:
    """One transfer run: a protocol, its data, the initial weights, the run folder and the changes to the config."""

    protocol: Protocol
    data_root: Path
    out: Path
    weights: Path | None = None
    """Any file that `transfer.weights.load` can read; None for random weights."""
    scale: str = "paper"
    seed: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    """Config keys set by the user, in the dotted form of the framework; they win over the mini overrides."""
    freeze: str = "none"
    """One of `FREEZES`; "backbone" does not train the backbone and keeps its BatchNorm in evaluation mode."""
    batch: int | None = None
    """Images per batch over all processes; settings that depend on it are scaled (`transfer.batch_scaling`)."""
    accumulate: int = 1
    """Number of parts that a batch is split into; they are computed one after another and their gradients averaged."""
    classes: Classes | None = None
    """A user's own classes, in place of those of the published data set."""
    process_timeout: float = PROCESS_TIMEOUT_H
    """Hours that a process waits for the others before it gives up."""
    like: Path | None = None
    """File of a backbone whose network and pixels a random one takes; None for a ResNet-50 of the scale."""
    cache: Path | None = None
    """Folder that keeps the features of frozen protocols; None to compute them for this run alone."""
    cache_gb: float = CACHE_GB
    """GB that the features in ``cache`` may take."""
    workers: int | None = None
    """Processes that read the pictures of a frozen protocol; None for one for each core."""
    scaling: dict[str, Any] = field(default_factory=dict)
    """Overrides that follow from ``batch``; `transfer.run` fills them in."""

    @property
    def all_overrides(self) -> dict[str, Any]:
        """All differences from the published config file, in the order in which they are applied."""
        return {**self.sizes, **self.scaling, **self.overrides}

    @cached_property
    def files(self) -> dict[str, str]:
        """SHA-256 digest of each file that an override names, such as a list of pictures, as it is when first asked for."""
        named = {key: Path(value) for key, value in self.overrides.items() if isinstance(value, str)}
        return {key: sha256(path) for key, path in named.items() if path.is_file()}

    @property
    def sizes(self) -> dict[str, Any]:
        """The overrides of the mini scale, or none at paper scale."""
        return self.protocol.mini if self.scale == "mini" else {}


@dataclass(frozen=True)
class Outcome:
    """The result that the runner of a framework returns for one job."""

    metrics: dict[str, float]
    """Metrics under the names of the framework; values may be NaN."""
    config: dict[str, Any]
    """The resolved config as plain data."""
    iterations: int
    deviations: tuple[str, ...] = ()
    """Differences from the protocol that this machine makes necessary, one sentence each."""
    evaluation: dict[str, Any] = field(default_factory=dict)
    """How the numbers were made: the network ("spec") and the number of "pictures" of each split; of a frozen protocol, also
    images, stride, ignored labels, number of patches, chosen settings, why a metric is "undefined", and what else to know."""
    kept: Kept = field(default_factory=Kept)
    """Values of classes and images."""


def unpublished(job: TransferJob, spec: object) -> tuple[str, ...]:
    """Return a sentence if the protocol was published for another kind of backbone than ``spec``."""
    if not isinstance(spec, NamedSpec) or job.protocol.kind == "frozen":
        return ()
    if any(fnmatchcase(spec.name, pattern) for pattern in job.protocol.networks):
        return ()
    return (f"backbone {spec.title}, for which {job.protocol.name} was not published",)
