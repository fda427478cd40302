"""What a result file holds. `pixbench/result.schema.json` is generated from these types, and results are checked by them.

A field without a default is in every result. `MEASURED`, `NUMBERS` and `OWN` name fields that are in certain results only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pixbench.file_versions import RESULT_SCHEMA

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]
Numbers = dict[str, float | None]
"""Name -> number; None for an undefined one, as JSON has no NaN."""
NUMBERS = ("metrics", "units")
"""What a transfer result with status "ok" that was imported or upgraded holds besides."""
MEASURED = ("metrics", "units", "curve", "config", "config_sha256")
"""What a result with status "ok" of a run of this program holds besides."""
OWN = ("code", "host", "usage", "wall_time_s", "started", "finished", "command", "versions")
"""What any result of a run of this program holds, and one that was imported or upgraded may not."""


class Pretraining(msgspec.Struct):
    """The pre-training run that weights come from, as its checkpoint says."""

    method: str
    seed: int
    epochs: Count
    """Epochs of the whole run."""
    step: Count
    """Finished steps."""
    finished: bool
    config_sha256: Digest
    """Digest of its settings, which its own result has too."""
    images: str
    """Fingerprint of its images."""
    out: str
    """Its run folder, as it was given."""


class Weights(msgspec.Struct):
    """The file that a run started from."""

    path: str
    sha256: Digest
    source: str
    """Path or other description of the origin."""
    pretraining: Pretraining | None = None
    """None if the file does not say."""


class Code(msgspec.Struct):
    """The version of this program."""

    commit: str | None
    dirty: bool | None
    """Whether its sources differed from the commit."""
    why: str = ""
    """Why there is no commit."""


class Host(msgspec.Struct):
    """The machine."""

    device: str
    """Name of the first GPU, or "cpu"."""
    processes: Count
    cpus: Count
    """Cores."""
    threads: Count
    """Threads of PyTorch in each process."""
    gpus: list[str] | UnsetType = UNSET
    cpu: str | UnsetType = UNSET
    memory_gb: Amount | UnsetType = UNSET
    """In 10⁹ bytes."""
    system: str | UnsetType = UNSET


class Usage(msgspec.Struct):
    """What the run took on the machine of its first process; of a resumed run, only since it was resumed."""

    peak_memory_gb: Amount
    """Largest of samples of the memory of all its processes, in 10⁹ bytes."""
    peak_gpu_memory_gb: Amount | None
    """Peak of the tensors of its first process, in 10⁹ bytes."""
    cpu_energy_j: float | None
    """Joules of all processor packages, other programs included."""
    gpu_energy_j: float | None
    """Joules of the GPUs."""
    unread: dict[str, str]
    """Field that could not be read -> why."""


class Data(msgspec.Struct):
    """The data of a transfer run."""

    root: str
    notes: list[str] = []
    """How unusual data was read."""
    fingerprints: dict[str, str] | UnsetType = UNSET
    """Data set -> digest of the relative names and sizes of its files and of the content of its annotation files."""


class Stored(msgspec.Struct):
    """A file beside the result."""

    sha256: Digest
    bytes: Count


class Arrays(msgspec.Struct):
    """Where the values of each image are."""

    file: str
    """Name of an .npz file beside the result."""
    arrays: dict[str, str]
    """Our name of an array -> its name in the file."""


class Origin(msgspec.Struct):
    """The file that a result was imported from."""

    tool: str
    """Program that wrote it."""
    file: str
    sha256: Digest


class Result(msgspec.Struct, tag_field="kind"):
    """What results of all kinds hold."""

    schema: Literal[RESULT_SCHEMA]  # type: ignore[valid-type]
    digest: Digest
    """SHA-256 of the rest of the content as compact JSON with sorted keys (`pixbench.results.digest_of`)."""
    status: Literal["ok", "failed"]
    reason: str = ""
    """Why it failed."""
    command: list[str] | UnsetType = UNSET
    versions: dict[str, str] | UnsetType = UNSET
    """Python and the packages that can affect a result."""
    code: Code | UnsetType = UNSET
    host: Host | UnsetType = UNSET
    usage: Usage | UnsetType = UNSET
    started: str | UnsetType = UNSET
    """UTC, ISO 8601."""
    finished: str | UnsetType = UNSET
    wall_time_s: Amount | UnsetType = UNSET
    """Seconds; of a resumed run, only since it was resumed."""
    seed: int | UnsetType | None = UNSET
    """None for an imported result whose seed is not known."""
    config: dict[str, Any] | UnsetType = UNSET
    """Resolved settings."""
    config_sha256: Digest | UnsetType = UNSET
    metrics: Numbers | UnsetType = UNSET
    units: dict[str, str] | UnsetType = UNSET
    """Metric -> "%", or "1" for a plain number."""
    curve: list[Numbers] | UnsetType = UNSET
    """The learning curve: "step" and what was measured there."""
    stored: dict[str, Stored] | UnsetType = UNSET
    """Name of each file beside the result that belongs to it."""
    imported: Origin | UnsetType = UNSET
    upgraded_from: int | UnsetType = UNSET
    """Older version of this file that it was written in."""


class PretrainResult(Result, tag="pretrain"):
    """A pre-training run."""

    method: str | UnsetType = UNSET
    step: Count | UnsetType = UNSET
    """Finished steps."""
    steps: Count | UnsetType = UNSET
    """Steps of the whole run."""
    seconds: Amount | UnsetType = UNSET
    """Training time, including that before it was resumed."""
    skipped: Count | UnsetType = UNSET
    """Broken images that were left out."""
    images: str | UnsetType = UNSET
    """Fingerprint of the images."""
    initial: dict[str, Any] | UnsetType | None = UNSET
    """Source and digest of the weights that it started from."""


class Evaluated(Result, kw_only=True):
    """What results of transfer runs hold, fine-tuned or frozen."""

    protocol: str
    title: str
    framework: str
    scale: str
    init: str
    """Name of the weight file, or "random"."""
    weights: Weights | None
    label: str | None
    """Name of the table row; None to derive it from the weights."""
    deviations: list[str]
    """What differs from the published protocol, one sentence each."""
    like: str | None = None
    """Digest of the file whose network a random backbone took."""
    overrides: dict[str, Any] | UnsetType = UNSET
    files: dict[str, str] | UnsetType = UNSET
    """Override that names a file -> SHA-256 digest of the file."""
    freeze: str | UnsetType = UNSET
    scaling: dict[str, Any] | UnsetType = UNSET
    """Batch, accumulation and the settings that follow from them."""
    classes: list[str] | None = None
    """A user's own classes."""
    data: Data | UnsetType = UNSET
    published_config_sha256: Digest | UnsetType = UNSET
    resumed: bool | UnsetType = UNSET
    raw_metrics: Numbers | UnsetType = UNSET
    """All numbers of the framework's evaluator, under its names."""
    iterations: int | UnsetType = UNSET
    evaluation: dict[str, Any] | UnsetType = UNSET
    """How the numbers were made."""
    per_class: dict[str, Numbers] | UnsetType = UNSET
    """Metric -> class -> its value, in the unit of the metric."""
    per_image: dict[str, Arrays] | UnsetType = UNSET
    """Metric -> the arrays from which it follows for any set of images (`pixbench.results.per_image`)."""


class TransferResult(Evaluated, tag="transfer", kw_only=True):
    """A fine-tuned backbone."""


class FrozenResult(Evaluated, tag="frozen", kw_only=True):
    """A frozen backbone."""


ANY_RESULT = PretrainResult | TransferResult | FrozenResult
