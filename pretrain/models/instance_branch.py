"""The instance branch that PixPro and PixContrast can carry: a second loss, between whole images, on the same C5.

L = L_pixel + α · L_instance. There are two of them; `Config.instance` says which:

- "regression", the official code's (`contrast/models/PixPro.py` with `pixpro_ins_loss_weight` > 0), of BYOL's type:
  backbone -> projector_instance -> predictor, against target backbone -> target projector_instance; −2 cos, summed over both
  ways, in [−4, 4]. Heads work cell by cell; the average over cells comes after them and before the normalisation.
- "contrastive", the paper's (text on combining with instance contrast): SimCLR with a momentum encoder. There is no
  code of it. Here the same projector_instance without a predictor; both views' projections are told apart by NT-Xent
  against the target's projections of all images of all processes, in [0, ∞).

Shapes: B batch, C channels, (H, W) map of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.losses import full_precision, unit
from pretrain.losses.instance import cosine_regression, nt_xent
from pretrain.models.heads import ConvHead
from pretrain.models.momentum_encoder import MomentumEncoder

Instance = Literal["none", "contrastive", "regression"]


@dataclass(frozen=True)
class PixelConfig:
    """Settings that PixPro and PixContrast share, with the values of the paper; the branch's are the last three.

    Args:
        threshold: T: two cells are a positive pair below this distance, in cell diagonals.
        momentum: of the target at the start; it grows to 1 along a cosine.
        hidden: channels between the two layers of the projector.
        dim: channels of the projector's output.
        instance: loss between whole images besides: "none", "contrastive" (the paper's, as SimCLR with a target) or
            "regression" (the official code's, as BYOL).
        alpha: weight α of that loss.
        instance_temperature: of the softmax of "contrastive"; the paper does not name it, this is SimCLR's.
    """

    threshold: float = 0.7
    momentum: float = 0.99
    hidden: int = 4096
    dim: int = 256
    instance: Instance = "none"
    alpha: float = 1.0
    instance_temperature: float = 0.1


def add_instance_heads(owner: nn.Module, channels: int, config: PixelConfig) -> tuple[str, ...]:
    """Give ``method`` the heads of its branch, if it wants one, and name those that its target has to copy."""
    if config.instance not in get_args(Instance):
        raise UserError(f"method.instance '{config.instance}' is not known; choose {', '.join(get_args(Instance))}")
    if config.instance == "none":
        return ()
    owner.add_module("projector_instance", ConvHead(channels, config.hidden, config.dim))
    if config.instance == "regression":
        owner.add_module("predictor", ConvHead(config.dim, config.hidden, config.dim))
    return ("projector_instance",)


def add_instance_loss(
    owner: nn.Module,
    momentum_encoder: MomentumEncoder,
    config: PixelConfig,
    maps: Sequence[Tensor],
    momentum_maps: Sequence[Tensor],
    scalars: dict[str, Tensor],
) -> dict[str, Tensor]:
    """``scalars`` with α times the branch's loss added to "loss", and both terms beside it; unchanged without a branch.

    Args:
        method, target: which have the heads.
        maps, momentum_maps: C5 (B, C, H, W) of both views by the student's and the target's backbone.
        scalars: what the method returns without the branch.
    """
    if config.instance == "none":
        return scalars
    projector = owner.get_submodule("projector_instance")
    with torch.no_grad():
        momentum_projector = momentum_encoder.get_submodule("projector_instance")
        key1, key2 = (_pooled(momentum_projector(x)) for x in momentum_maps)
    projections = [projector(x) for x in maps]
    if config.instance == "regression":
        predictor = owner.get_submodule("predictor")
        query1, query2 = (_pooled(predictor(x)) for x in projections)
        loss = cosine_regression(query1, key2) + cosine_regression(query2, key1)
    else:
        query1, query2 = (_pooled(x) for x in projections)
        loss, _ = nt_xent(query1, query2, config.instance_temperature, keys=(key1, key2))
    total = scalars["loss"] + config.alpha * loss
    return {**scalars, "loss": total, "loss_pixel": scalars["loss"].detach(), "loss_instance": loss.detach()}


def _pooled(x: Tensor) -> Tensor:
    """(B, C, H, W) -> unit vectors (B, C)."""
    return unit(full_precision(x).mean(dim=(2, 3)))
