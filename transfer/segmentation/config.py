"""From a protocol's config file and a job to the resolved MMSegmentation config."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
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


def resolve(job: TransferJob, spec: TrunkSpec | None = None) -> Config:
    """The protocol's config with the job's overrides, its seed and the width of ``spec`` (None: of the config).

    Where the data lies and where the run is written is not part of it: the same job resolves to the same anywhere.
    """
    from mmengine.config import Config

    # Not formatted by yapf: mmengine prints the config at every checkpoint, and that takes longer than the checkpoint.
    path = job.protocol.config
    config = Config(Config.fromfile(path).to_dict(), filename=path, format_python_code=False)
    for key, value in job.all_overrides.items():
        override(config, key, value)
    if spec is not None:
        backbone = config.model.backbone
        backbone.depth = spec.depth
        backbone.stem_channels = backbone.base_channels = int(64 * spec.width)
        config.model.decode_head.in_channels = spec.channels
    config.randomness.seed = job.seed
    return config


def trunk_spec(config: Config) -> TrunkSpec:
    """The trunk that ``config`` asks for."""
    from pretrain.models.resnet import TrunkSpec

    backbone = config.model.backbone
    return TrunkSpec(backbone.depth, backbone.base_channels / 64, OUTPUT_STRIDE)


def override(config: Config, key: str, value: Any) -> None:
    """Set the dotted ``key`` (an element of a list by its number) that is already in ``config``.

    mmengine's own `merge_from_dict` makes a new key of a misspelt one, which then does nothing.
    """
    *parents, last = key.split(".")
    node: Any = config
    try:
        for parent in parents:
            node = node[_step(node, parent)]
        last = _step(node, last)
        old = node[last]
    except (KeyError, IndexError, TypeError, ValueError):
        known = list(_dotted(config.to_dict()))
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"override {key!r} is not in the protocol's config{hint}") from None
    if isinstance(old, dict) and isinstance(value, dict):
        for name, inner in value.items():
            override(config, f"{key}.{name}", inner)
    elif _fits(old, value):
        node[last] = tuple(value) if isinstance(old, tuple) else value
    else:
        raise UserError(
            f"override {key} = {value!r} is not of the kind of the protocol's value {old!r}; give one that is"
        )


def plain(config: Config) -> dict[str, Any]:
    """``config`` as JSON knows it: tuples become lists."""
    return json.loads(json.dumps(config.to_dict()))


def place(config: Config, data_root: Path, out: Path) -> None:
    """Fill in where the data lies and where the run goes."""
    for loader in DATALOADERS:
        config[loader].dataset.data_root = str(data_root / "cityscapes")
    config.work_dir = str(out)


def _step(node: Any, name: str) -> str | int:
    return int(name) if isinstance(node, list) else name


def _fits(old: Any, value: Any) -> bool:
    if old is None:
        return True
    if isinstance(old, bool) or isinstance(value, bool):
        return isinstance(old, bool) and isinstance(value, bool)
    for kind in ((int, float), (list, tuple), str, dict):
        if isinstance(old, kind):
            return isinstance(value, kind) or (value is None and kind in (str, dict))
    return True


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of nested dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        yield f"{prefix}{name}"
        yield from _dotted(value, f"{prefix}{name}.")
