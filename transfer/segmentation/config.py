"""From a protocol's config file and a job to the resolved MMSegmentation config."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pretrain.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

    from pretrain.models.resnet import TrunkSpec
    from transfer.job import TransferJob

OUTPUT_STRIDE = 16
LOG = "log.txt"
"""In the folder of the run: all that the framework says."""
DATALOADERS = ("train_dataloader", "val_dataloader")
BY_OPTION = {"randomness.seed": "--seed", **{f"{loader}.dataset.data_root": "--data-root" for loader in DATALOADERS}}


def resolve(job: TransferJob, spec: TrunkSpec | None = None) -> Config:
    """The protocol's config with the job's overrides and the width of ``spec`` (None: as wide as the config says).

    Seed and places are not part of it: all runs of one protocol resolve to the same.

    Raises `UserError` for a key that does not exist, a value of another kind, or a trunk that does not fit the protocol.
    """
    from mmengine.config import Config

    # Not formatted by yapf: mmengine prints the config at every checkpoint, and that takes longer than the checkpoint.
    path = job.protocol.config
    config = Config(Config.fromfile(path).to_dict(), filename=path, format_python_code=False)
    for key, value in job.all_overrides.items():
        override(config, key, value)
    if spec is not None:
        fit_trunk(config, job, spec)
    return config


def fit_trunk(config: Config, job: TransferJob, spec: TrunkSpec) -> None:
    """Set the width options from ``spec``. At paper scale they are the protocol's, and another trunk is an error."""
    base, backbone, head = int(64 * spec.width), config.model.backbone, config.model.decode_head
    wanted = {"depth": spec.depth, "stem_channels": base, "base_channels": base}
    differ = {f"model.backbone.{key}": value for key, value in wanted.items() if backbone[key] != value}
    if head.in_channels != spec.channels:
        differ["model.decode_head.in_channels"] = spec.channels
    if differ and job.scale == "paper":
        settings = " ".join(f"--set {key}={value}" for key, value in differ.items())
        raise UserError(
            f"{job.weights} holds a ResNet-{spec.depth} of width {spec.width:g}, but {job.protocol.name} is defined for "
            f"another trunk; use --scale mini, or deviate knowingly with {settings}"
        )
    for key, value in differ.items():
        override(config, key, value)


def trunk_spec(config: Config) -> TrunkSpec:
    """The trunk that ``config`` asks for."""
    from pretrain.models.resnet import TrunkSpec

    backbone = config.model.backbone
    return TrunkSpec(backbone.depth, backbone.base_channels / 64, OUTPUT_STRIDE)


def override(config: Config, key: str, value: Any) -> None:
    """Set the dotted ``key`` (an element of a list by its number) that is already in ``config``.

    mmengine's own `merge_from_dict` makes a new key of a misspelt one, which then does nothing.
    """
    if key in BY_OPTION:
        raise UserError(f"{key} cannot be overridden; it is set by {BY_OPTION[key]}")
    *parents, last = key.split(".")
    node: Any = config
    try:
        for parent in parents:
            node = node[_step(node, parent)]
        place = _step(node, last)
        old = node[place]
    except (KeyError, IndexError, TypeError, ValueError):
        known = list(_dotted(config.to_dict()))
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"override {key!r} is not in the protocol's config{hint}") from None
    if isinstance(old, dict):
        raise UserError(f"override {key} is a group of settings; set them one by one, as {key}.{next(iter(old), '…')}")
    if not _fits(old, value):
        raise UserError(
            f"override {key} = {value!r} is of another kind than the protocol's {old!r}; give one that fits"
        )
    node[place] = tuple(value) if isinstance(old, tuple) else value


def plain(config: Config) -> dict[str, Any]:
    """``config`` as JSON knows it (tuples become lists), before `run` fills in places and seed."""
    return json.loads(json.dumps(config.to_dict()))


def _step(node: Any, name: str) -> str | int:
    return int(name) if isinstance(node, list) else name


def _fits(old: Any, value: Any) -> bool:
    if isinstance(old, bool) or isinstance(value, bool):
        return old is None or isinstance(old, bool) is isinstance(value, bool)
    kinds: tuple[tuple[Any, Any], ...] = (
        (int, int),
        (float, int | float),
        (list | tuple, list | tuple),
        (str, str | None),
    )
    return all(isinstance(value, accepted) for kind, accepted in kinds if isinstance(old, kind))


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of nested dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        yield f"{prefix}{name}"
        yield from _dotted(value, f"{prefix}{name}.")
