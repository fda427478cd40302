"""A random backbone that may stand beside trained ones: the same network and the same pixels, with fitting BN statistics.

It is one network for all protocols on a data set: pictures, their number and their size do not depend on the protocol.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen.network import FrozenNetwork
from transfer.frozen.parallel import by_first
from transfer.frozen.scenes import Pictures
from transfer.frozen.views import Images, Views
from transfer.initial_weights import random_backbone
from transfer.job import TransferJob
from transfer.weights.backbone import Backbone
from transfer.weights.tensors import fingerprint

PICTURES, BATCH = 1024, 64
"""Number of training pictures at most, evenly spread over the split, and of those that are seen at a time."""
SIZES = {"paper": 224, "mini": 64}
"""Scale -> side in pixels of the squashed pictures: that of pre-training. Each protocol has a size of its own; the statistics of
one of them would make another network for each. Maps of this size have several cells, so that even one picture has a variance."""
MINI = BackboneSpec(width=0.25, output_stride=16)
"""The backbone of `configs/pretrain/mini.yaml`."""


def fair_random(
    start: Backbone, job: TransferJob, train: Pictures, device: torch.device
) -> tuple[Backbone, dict[str, Any]]:
    """Return ``start``, what `uncalibrated` returned for ``job``, with fitting BN statistics, and what to record about it.

    Its BN statistics are the mean and variance of training pictures, as those of a trained backbone are; newly initialised
    ones (0 and 1) would not fit the maps that they normalise, which moves linear accuracy more than short pre-training does.
    They are those of the pictures ``train``, all training pictures of the data set, squashed to `SIZES` at the backbone's own
    stride, whatever the protocol does with its pictures: so all protocols on a data set measure the same random backbone and
    share its features. The record has the digest of its weights. Rank 0 computes it for all processes, and remembers the last.
    """
    size = SIZES[job.scale]
    backbone = by_first(lambda: _remembered(start, train, device, size))
    count = min(PICTURES, len(train)) if backbone.source != start.source else 0
    return backbone, {
        "like": job.like and str(job.like),
        "calibrated_pictures": count,
        "calibrated_size": size if count else None,
        "sha256": fingerprint(backbone.state, {}),
    }


def _remembered(start: Backbone, train: Pictures, device: torch.device, size: int) -> Backbone:
    about = [start.spec.as_dict(), str(start.pixels), train.fingerprint(), str(device), size]
    key = fingerprint(start.state | start.last_norm, {"about": about})
    if key not in _last:
        _last.clear()
        _last[key] = calibrated(start, train, device, size)
    return _last[key]


_last: dict[str, Backbone] = {}
"""The backbone that was calibrated last, by all that decides it."""


def uncalibrated(job: TransferJob) -> Backbone:
    """Return a random backbone of the spec and pixels of the one in ``job.like``, or of a ResNet-50 of the job's scale."""
    from transfer.weights import load
    from transfer.weights.sources import locate

    like = load(locate(job.like)) if job.like else None
    spec = like.spec if like else MINI if job.scale == "mini" else BackboneSpec()
    start = random_backbone(spec, job.seed)
    if not like:
        return start
    # a new layer norm has weight 1 and bias 0
    norm = {name: torch.full_like(tensor, name == "weight") for name, tensor in like.last_norm.items()}
    return replace(start, pixels=like.pixels, last_norm=norm)


def calibrated(backbone: Backbone, train: Pictures, device: torch.device, size: int) -> Backbone:
    """Return ``backbone`` with the BN statistics of pictures of ``train``, squashed to ``size`` pixels, if it has batch norm."""
    network = FrozenNetwork(backbone).to(device)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return backbone
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    count, views = min(PICTURES, len(train)), Views(train, Images(size=size))
    chosen = [place * len(views) // count for place in range(count)]
    with torch.inference_mode():
        for first in range(0, count, BATCH):
            network(torch.stack([views[place] for place in chosen[first : first + BATCH]]))
    state = {name: tensor.cpu() for name, tensor in network.network.state_dict().items()}
    return replace(backbone, state=state, source=f"{backbone.source}, BN statistics of {count} training pictures")
