"""Optional instance branch of PixPro and PixContrast: a second loss, between whole images, on the same C5.

L = L_pixel + α · L_instance. `Config.instance` chooses one of two kinds:

- "regression" is that of the official code (`contrast/models/PixPro.py` with `pixpro_ins_loss_weight` > 0), similar to
  BYOL: the student's backbone -> projector_instance -> predictor predicts the momentum encoder's backbone ->
  projector_instance. The loss is −2 cos, summed over both directions, in [−4, 4]. The heads work on each cell
  separately; the average over cells comes after them and before the normalisation.
- "contrastive" is that of the paper (text on combining with instance contrast): SimCLR with a momentum encoder. No code
  of it was released. Here it uses the same projector_instance without a predictor. NT-Xent compares the projections of
  both views with the momentum encoder's projections of all images of all processes, in [0, ∞).

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
from pretrain.losses.instance import cosine_regression, nt_xent_with_keys
from pretrain.models.heads import ConvHead
from pretrain.models.momentum_encoder import MomentumEncoder

Instance = Literal["none", "contrastive", "regression"]


@dataclass(frozen=True)
class PixelConfig:
    """Settings shared by PixPro and PixContrast, with the values of the paper. The last three are for the instance branch.

    Args:
        threshold: T, distance below which two cells are a positive pair, in cell diagonals.
        momentum: fraction of the old weights that the momentum encoder keeps per step, at the start; it grows to 1
            along a cosine.
        hidden: channels between the two layers of the projector.
        dim: channels of the projector's output.
        instance: additional loss between whole images: "none", "contrastive" (the paper's, as SimCLR with a momentum
            encoder) or "regression" (the official code's, as BYOL).
        alpha: weight α of that loss.
        instance_temperature: softmax temperature of "contrastive"; SimCLR's value, since the paper does not give one.
    """

    threshold: float = 0.7
    momentum: float = 0.99
    hidden: int = 4096
    dim: int = 256
    instance: Instance = "none"
    alpha: float = 1.0
    instance_temperature: float = 0.1


def add_instance_heads(owner: nn.Module, channels: int, config: PixelConfig) -> tuple[str, ...]:
    """Add the heads of the instance branch to ``owner``; return the names of those that the momentum encoder copies.

    Without an instance branch nothing is added. ``channels`` are those of C5.
    """
    if config.instance not in get_args(Instance):
        raise UserError(f"method.instance '{config.instance}' is not known; choose {', '.join(get_args(Instance))}")
    if config.instance == "none":
        return ()
    owner.add_module("projector_instance", ConvHead(channels, config.hidden, config.dim))
    if config.instance == "regression":
        owner.add_module("predictor", ConvHead(config.dim, config.hidden, config.dim))
    return ("projector_instance",)


def instance_keys(
    momentum_encoder: MomentumEncoder, config: PixelConfig, maps: Sequence[Tensor]
) -> tuple[Tensor, Tensor] | None:
    """Return the keys (B, C) of both views; None without an instance branch.

    ``maps`` are C5 (B, C, H, W) of both views by the momentum encoder's backbone.
    """
    if config.instance == "none":
        return None
    with torch.no_grad():
        projector = momentum_encoder.get_submodule("projector_instance")
        key1, key2 = (_pooled(projector(x)) for x in maps)
    return key1, key2


def add_instance_loss(
    owner: nn.Module,
    config: PixelConfig,
    maps: Tensor,
    keys: tuple[Tensor, Tensor] | None,
    view: int,
    scalars: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Return ``scalars`` of one view with its part of the branch's loss, times α, added to "loss".

    "loss_pixel" and "loss_instance" are the two terms. Without an instance branch ``scalars`` is returned unchanged.

    Args:
        owner: the method, with the student's heads.
        config: settings of the branch.
        maps: C5 (B, C, H, W) of ``view`` by the student's backbone.
        keys: result of `instance_keys`.
        view: 0 or 1.
        scalars: result of the method for ``view`` without the branch.
    """
    if keys is None:
        return scalars
    query = owner.get_submodule("projector_instance")(maps)
    if config.instance == "regression":
        query = owner.get_submodule("predictor")(query)
        loss = cosine_regression(_pooled(query), keys[1 - view])
    else:
        loss = nt_xent_with_keys(_pooled(query), keys, view, config.instance_temperature)[0] / 2
    total = scalars["loss"] + config.alpha * loss
    return {**scalars, "loss": total, "loss_pixel": scalars["loss"].detach(), "loss_instance": loss.detach()}


def _pooled(x: Tensor) -> Tensor:
    """Average (B, C, H, W) over cells and return unit vectors (B, C)."""
    return unit(full_precision(x).mean(dim=(2, 3)))
