"""PixPro: pixel-to-propagation consistency (Xie et al., arXiv 2011.10043).

Shapes: B batch, C channels, (H, W) map of cells, N = H·W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.pixel import consistency_both_ways
from pretrain.methods.base import MomentumMethod, feature_std
from pretrain.models.heads import ConvHead
from pretrain.models.instance_branch import PixelConfig, add_instance_heads, add_instance_loss
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.ppm import PixelPropagation
from pretrain.models.resnet import ResNet


@dataclass(frozen=True)
class PropagationConfig:
    """Settings of the PPM.

    Args:
        gamma: exponent γ of the similarity in the PPM.
        layers: number l of layers of the transform in the PPM: 0, 1 or 2.
        clamp: lower bound of the cosine in the PPM.
    """

    gamma: float = 2.0
    layers: int = 1
    clamp: float = 0.0


class PixPro(MomentumMethod):
    """PixPro: make the student's propagated cells agree with the momentum encoder's cells of the other view.

    The student is backbone -> projector -> PPM (y), the momentum encoder backbone -> projector (x').
    The loss has both directions: pixel_consistency(y1, x2') + pixel_consistency(y2, x1'), between −4 (all positive pairs
    agree) and +4; a negative loss is normal. The views go through the networks one after the other, so BN statistics are
    per view (as in the official code). An optional instance branch (`pretrain.models.instance_branch`) adds a loss.
    """

    title = "PixPro: pixel-to-propagation consistency"

    @dataclass(frozen=True)
    class Config(PixelConfig, PropagationConfig):
        """Settings of PixPro, with the values of the paper. Order of the settings: those of the PPM, then the others."""

    config: Config

    def __init__(self, backbone: ResNet, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = ConvHead(backbone.channels, config.hidden, config.dim)
        self.propagation = PixelPropagation(config.dim, config.layers, config.gamma, config.clamp)
        averaged = ("backbone", "projector", *add_instance_heads(self, backbone.channels, config))
        self.momentum_encoder = MomentumEncoder(self, averaged, config.momentum, total_steps)

    @classmethod
    def compares_images(cls, settings: Any) -> bool:
        """Return whether there is an instance branch with negatives."""
        return settings.instance == "contrastive"

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss", "feature_std" of the projections and "positives" (mean number of positive pairs per image)."""
        images, boxes = (views.view1, views.view2), (views.box1, views.box2)
        maps = [self.backbone(x) for x in images]  # C5 (B, backbone.channels, H, W) each
        projections = [self.projector(x) for x in maps]  # (B, C, H, W) each
        queries = [unit(self.propagation(x)) for x in projections]
        with torch.no_grad():
            momentum_maps = [self.momentum_encoder.backbone(x) for x in images]
            keys = [unit(self.momentum_encoder.projector(x)) for x in momentum_maps]
        loss, count = consistency_both_ways(queries, keys, boxes, self.config.threshold)
        positives = count.mean(dtype=torch.float32)
        scalars = {"loss": loss, "feature_std": feature_std(torch.cat(projections)), "positives": positives}
        return add_instance_loss(self, self.momentum_encoder, self.config, maps, momentum_maps, scalars)
