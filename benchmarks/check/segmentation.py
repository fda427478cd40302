"""Build the segmentor of a job on the CPU, load its backbone, and send small pictures through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from logging import WARNING
from typing import Any

import mmseg.models  # noqa: F401  registers the models
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from benchmarks.check.built import Built, Resolved, sizes
from transfer.batch_scaling import divided
from transfer.job import TransferJob
from transfer.segmentation import linear_head, named_backbone, stage_decay  # noqa: F401  registers them
from transfer.segmentation.config import backbone_spec, check_pixels, config_as_dict, train_on_cpus
from transfer.segmentation.config import resolve as config_of
from transfer.segmentation.run import BATCH
from transfer.segmentation.u2pl import register
from transfer.segmentation.u2pl.settings import check
from transfer.weights import Backbone, load_into

SIDE = 96
"""Side of the pictures in pixels."""
PICTURES = 4
"""Their number: batch norm needs two values where a map has a single cell, in the labelled half of U2PL's batch too."""


def resolve(job: TransferJob, backbone: Backbone | None, processes: int) -> Resolved:
    """Return the config of ``job``; UserError if it has a mistake, or does not fit ``backbone`` or so many processes."""
    config = config_of(job, backbone.spec if backbone else None)
    if backbone:
        check_pixels(config, job, backbone.pixels)
    batch = config.auto_scale_lr.base_batch_size
    if BATCH in job.all_overrides:  # of one process
        batch = config.train_dataloader.batch_size * processes
    config.train_dataloader.batch_size = divided(batch, job.accumulate, processes)
    check(config, processes)
    kept = config.default_hooks.checkpoint.max_keep_ckpts + 1
    return Resolved(config, config_as_dict(config), backbone_spec(config), batch, config.train_cfg.max_iters, kept)


def build(job: TransferJob, config: Config, backbone: Backbone) -> Built:
    """Build the model and the optimiser that ``config`` describes, and compute the losses of a few pictures.

    Raises:
        UserError: the backbone does not fit the model.
    """
    register()
    init_default_scope(config.default_scope)  # parts of the model are looked for there
    model: Any = revert_sync_batchnorm(MODELS.build(config.model))
    load_into(model, backbone, job.protocol.weights_framework)
    config = deepcopy(config)
    train_on_cpus(config)
    with _without_listing():
        optimizer = build_optim_wrapper(model, config.optim_wrapper).optimizer
    kept = _activations(model) / (PICTURES * SIDE**2)
    height, width = config.model.data_preprocessor.size
    return sizes(model, optimizer, kept * height * width)


@contextmanager
def _without_listing() -> Iterator[None]:
    """Keep mmengine from printing several lines for each parameter that has settings of its own."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(WARNING)
    yield
    logger.setLevel(level)


def _activations(model: nn.Module) -> int:
    """Return the bytes that autograd stores for the losses of the pictures, without the weights."""
    own = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        if (place := x.untyped_storage().data_ptr()) not in own:
            kept[place] = x.untyped_storage().nbytes()
        return x

    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=_about()) for _ in range(PICTURES)]
    images = torch.randn(PICTURES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        losses = model(images, samples, mode="loss")
        total = sum(kept.values())  # while the graph exists, no address is used twice
        del losses
    return total


def _about() -> dict[str, Any]:
    return {"img_shape": (SIDE, SIDE), "ori_shape": (SIDE, SIDE), "pad_shape": (SIDE, SIDE)}
