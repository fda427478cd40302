"""ViTDet (arXiv:2203.16527) for our Detectron2 runner: the LazyConfig model, its optimiser and its augmentations."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import detectron2.data.transforms as T
import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode, LazyCall, instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.backbone.vit import get_vit_lr_decay_rate
from detectron2.solver.build import get_default_optimizer_params, reduce_param_groups
from omegaconf import OmegaConf
from torch import nn, optim

from pretrain.models.named_spec import NamedSpec
from transfer.detection.plain_network import FEATURE, PlainNetwork
from transfer.weights.vit_spec import VitSpec

FRAMEWORK = "detectron2_vitdet"
LAZY = "common/models/mask_rcnn_vitdet.py"
FIELDS = {
    **{"embed_dim": "width", "depth": "depth", "num_heads": "heads", "patch_size": "patch"},
    "pretrain_img_size": "image",
}
"""Arguments of Detectron2's ViT that depend on the backbone -> fields of its spec."""


def backbone_spec(cfg: CfgNode) -> VitSpec | NamedSpec:
    """Return the spec of the backbone that ``cfg`` builds."""
    net = cfg.VITDET.MODEL.backbone.net
    if "name" in net:
        return NamedSpec(net.name, json.loads(net.options))
    return VitSpec(**{field: net[name] for name, field in FIELDS.items()})


@META_ARCH_REGISTRY.register()
def build_vitdet(cfg: CfgNode) -> nn.Module:
    """Build Detectron2's own model; VITDET.MODEL replaces values in its config."""
    lazy = model_zoo.get_config(LAZY).model
    if isinstance(backbone_spec(cfg), NamedSpec):
        lazy.backbone.net, lazy.backbone.in_feature = LazyCall(PlainNetwork)(), FEATURE
    model: nn.Module = instantiate(OmegaConf.merge(lazy, OmegaConf.create(yaml.safe_load(cfg.VITDET.MODEL.dump()))))
    return model


def optimizer(cfg: CfgNode, model: nn.Module) -> optim.Optimizer:
    """Return AdamW: each block learns by a factor slower than the next; norms and positions have no weight decay."""
    net: Any = model.get_submodule("backbone.net")
    rate = cfg.VITDET.LAYER_DECAY
    if isinstance(net, PlainNetwork):
        scales, spared = net.lr_scales(rate), net.without_decay()
        factor: Any = lambda name: scales.get(name, 1.0)  # noqa: E731
    else:
        factor, spared = partial(get_vit_lr_decay_rate, lr_decay_rate=rate, num_layers=len(net.blocks)), []
    groups = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        lr_factor_func=factor,
        overrides={"pos_embed": {"weight_decay": 0.0}},
    )
    groups = reduce_param_groups([*groups, {"params": spared, "weight_decay": 0.0}])
    return optim.AdamW(groups, cfg.SOLVER.BASE_LR, betas=tuple(cfg.VITDET.BETAS), weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def images(cfg: CfgNode) -> dict[str, Any]:
    """Return the options of the training mapper: flip, large-scale jitter, square crop, boxes made from the masks."""
    (low, high), side = cfg.VITDET.JITTER, cfg.VITDET.MODEL.backbone.square_pad
    crop = T.FixedSizeCrop((side, side), pad=False)
    return {
        "augmentations": [T.RandomFlip(horizontal=True), T.ResizeScale(low, high, side, side), crop],
        "recompute_boxes": True,
    }
