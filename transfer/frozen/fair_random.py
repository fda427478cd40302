"""A random backbone that may stand beside trained ones: the same network and the same pixels, with fitting BN statistics.

Shapes: B images of H × W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
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
MINI = BackboneSpec(width=0.25, output_stride=16)
"""The backbone of `configs/pretrain/mini.yaml`."""


def fair_random(job: TransferJob, train: Pictures, size: int, device: torch.device) -> tuple[Backbone, dict[str, Any]]:
    """Return a random backbone as `uncalibrated` does, with fitting BN statistics, and what to record about it.

    Its BN statistics are the mean and variance of training pictures, as those of a trained backbone are; newly initialised
    ones (0 and 1) would not fit the maps that they normalise, which moves linear accuracy more than short pre-training does.
    The pictures of ``train`` are squashed to ``size``, whatever the protocol does with them, so that all protocols on one data
    set have the same random backbone and share its features. Rank 0 computes it for all processes, and remembers the last one.
    """
    start, views = uncalibrated(job), Views(train, Images(size=size))
    backbone = by_first(lambda: _remembered(start, views, device))
    count = min(PICTURES, len(train)) if backbone.source != start.source else 0
    return backbone, {"like": job.like and str(job.like), "calibrated_pictures": count}


def _remembered(start: Backbone, views: Views, device: torch.device) -> Backbone:
    about = [start.spec.as_dict(), str(start.pixels), views.about(), views.pictures.fingerprint(), str(device)]
    key = fingerprint(start.state, {"about": about})
    if key not in _last:
        _last.clear()
        _last[key] = calibrated(start, views, device)
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
    return replace(start, pixels=like.pixels) if like else start


def calibrated(backbone: Backbone, views: Views, device: torch.device) -> Backbone:
    """Return ``backbone`` with the BN statistics of pictures of ``views``; without batch norm, there is nothing to do."""
    network = FrozenNetwork(backbone, views.images.output_stride).to(device)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return backbone
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    count = min(PICTURES, len(views))
    chosen = [place * len(views) // count for place in range(count)]
    with torch.inference_mode():
        for batch in _batches(chosen, views):
            network(torch.stack([views[place] for place in batch]))
    state = {name: tensor.cpu() for name, tensor in network.network.state_dict().items()}
    return replace(backbone, state=state, source=f"{backbone.source}, BN statistics of {count} training pictures")


def _batches(chosen: list[int], views: Views) -> list[list[int]]:
    """Return ``chosen`` in batches of pictures of one shape.

    A picture that would be alone after a full batch joins it: if its map has one cell, it has no variance of its own.
    """
    by_shape: dict[tuple[int, int], list[int]] = {}
    for place in chosen:
        by_shape.setdefault(views.shape(place), []).append(place)
    batches = []
    for some in by_shape.values():
        ends = [*range(BATCH, len(some) - 1, BATCH), len(some)]
        batches += [some[start:end] for start, end in pairwise([0, *ends])]
    return batches
