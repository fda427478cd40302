"""The backbone that a transfer job will start from, as far as it can be known before anything is trained."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from benchmarks.dry_step import without_values
from pixbench.file_versions import CHECKPOINT_FILE, CHECKPOINT_FORMAT, CHECKPOINT_VERSION
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.settings import RunConfig
from transfer.initial_weights import random_backbone, supervised_place
from transfer.weights import Backbone, load
from transfer.weights.sources import locate

BLANK = 0.01
"""Value of the weights of a pyramid and a head."""
drawn = cache(random_backbone)
"""`random_backbone`, drawn once."""


def pretrained(config: RunConfig) -> Backbone:
    """Return what is read from a checkpoint of ``config``, with random weights: backbone, and pyramid and head if it has them."""
    method = without_values(config)
    state = {f"backbone.{name}": tensor for name, tensor in drawn(config.backbone, 0).state.items()}
    for name, tensor in method.state_dict().items():
        if name.partition(".")[0] in method.exports and name not in state:
            state[name] = torch.full(tensor.shape, BLANK, dtype=tensor.dtype)
    about = {"method": config.method.name, "backbone": config.backbone.as_dict(), "exports": list(method.exports)}
    versions = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, "left_behind": method.left_behind}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CHECKPOINT_FILE
        torch.save({**versions, **about, "model": state}, path)
        return replace(load(path), source=str(Path(config.out) / CHECKPOINT_FILE))


@cache
def read(source: str) -> Backbone:
    """Return the backbone in the weights that ``source`` names.

    Raises:
        UserError: They are not there, or no backbone.
    """
    return load(locate(source))


def supervised() -> tuple[Backbone, str]:
    """Return torchvision's supervised backbone, or a random one of the same kind with a warning if it was not downloaded."""
    url, path = supervised_place()
    if path.is_file():
        return read(str(path)), ""
    return drawn(BackboneSpec(), 0), f"init: supervised will download {url}; without a network, put it at {path} first"
