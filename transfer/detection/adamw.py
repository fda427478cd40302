"""Optimiser and images of the protocols on networks by name, as MMDetection defines them for Swin and ConvNeXt.

Their configs have a section TRAIN, see `configs/detection/coco_swin_t_fpn_1x.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import detectron2.data.transforms as T
from detectron2.config import CfgNode
from torch import nn, optim

from pixbench.errors import UserError

SECTION = "TRAIN"
BACKBONE = "backbone.bottom_up."
"""Beginning of the names of the backbone's parameters in a detector."""
AFTER = ("net.norm_pre.", "net.head.")
"""What follows the stages of a ConvNeXt; it learns as fast as the heads, as in MMDetection."""
_PLACE = re.compile(r"net\.stages\.(\d+)\.(?:downsample|blocks\.(\d+))\.")


def optimizer(cfg: CfgNode, model: nn.Module) -> optim.Optimizer:
    """Return AdamW with a group of parameters for each learning rate and weight decay."""
    train, base = cfg.TRAIN, cfg.SOLVER.BASE_LR
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    names = [name.removeprefix(BACKBONE) for name in learning if name.startswith(BACKBONE)]
    places = layers(names, train.LAYERS) if train.LAYER_DECAY < 1 else {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        place = places.get(name.removeprefix(BACKBONE), train.LAYERS + 1)
        rate = base * train.LAYER_DECAY ** (train.LAYERS + 1 - place)
        free = any(part in name for part in train.NO_DECAY) or (train.NO_DECAY_VECTORS and parameter.dim() == 1)
        decay = 0.0 if free else cfg.SOLVER.WEIGHT_DECAY
        groups.setdefault((rate, decay), []).append(parameter)
    listed = [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()]
    return optim.AdamW(listed, base, betas=tuple(train.BETAS), weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def layers(names: Iterable[str], count: int) -> dict[str, int]:
    """Return the name of each parameter of a ConvNeXt of timm -> its layer, from 0 for the stem to ``count``.

    The third stage has a layer for every three blocks, and each other one a single layer. A downsampling layer belongs to the
    stage that it begins. Source: ``get_layer_id_for_convnext`` in mmdet/engine/optimizers.

    Raises:
        UserError: The names are not those of a ConvNeXt.
    """
    found: dict[str, int] = {}
    for name in names:
        if name.startswith("net.stem."):
            found[name] = 0
        elif match := _PLACE.match(name):
            stage, block = int(match[1]), int(match[2] or 0)
            found[name] = min((1, 2, 3 + block // 3, count)[min(stage, 3)], count)
        elif not name.startswith(AFTER):
            raise UserError(
                f"this protocol has a learning rate for each layer of a ConvNeXt (stem, stages), and {name} of the backbone "
                "belongs to none of these; choose a ConvNeXt of timm, or another protocol"
            )
    return found


def images(cfg: CfgNode) -> dict[str, Any]:
    """Return the options of the training mapper: flip, for half of the pictures a crop, and the size."""
    train, sizes = cfg.TRAIN, (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, "choice")
    crop = []
    if train.CROP:
        smaller = T.ResizeShortestEdge(train.CROP_FROM, cfg.INPUT.MAX_SIZE_TRAIN, "choice")
        crop = [T.RandomApply(T.AugmentationList([smaller, T.RandomCrop("absolute_range", train.CROP)]), 0.5)]
    return {
        "augmentations": [T.RandomFlip(horizontal=True), *crop, T.ResizeShortestEdge(*sizes)],
        "recompute_boxes": bool(crop),
    }
