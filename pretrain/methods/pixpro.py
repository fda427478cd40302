"""PixPro: pixel-to-propagation consistency (Xie et al., arXiv 2011.10043).

Shapes: B batch, C channels, (H, W) map of cells, N = H·W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.pixel import pulls
from pretrain.methods.base import TwoPassMethod, feature_std
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.heads import ConvHead
from pretrain.models.instance_branch import PixelConfig, add_instance_heads, add_instance_loss, instance_keys
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.ppm import PixelPropagation


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


class Targets(NamedTuple):
    """What the momentum encoder gives to both views."""

    pull: tuple[Tensor, Tensor]
    """Scaled sums of the keys of positive cells, (B, C, H, W) for each view, see `pretrain.losses.pixel.pulls`."""
    positives: Tensor
    """Mean number of positive pairs per image."""
    instance: tuple[Tensor, Tensor] | None
    """Keys of the instance branch."""


class PixPro(TwoPassMethod):
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

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = ConvHead(backbone.channels, config.hidden, config.dim)
        self.propagation = PixelPropagation(config.dim, config.layers, config.gamma, config.clamp)
        averaged = ("backbone", "projector", *add_instance_heads(self, backbone.channels, config))
        self.momentum_encoder = MomentumEncoder(self, averaged, config.momentum, total_steps)

    @classmethod
    def compares_images(cls, settings: Any) -> bool:
        """Return whether there is an instance branch with negatives."""
        return settings.instance == "contrastive"

    def targets(self, views: Views) -> Targets:
        """Return what the momentum encoder makes of both views."""
        momentum_maps = [self.momentum_encoder.backbone(x) for x in (views.view1, views.view2)]
        keys = [unit(self.momentum_encoder.projector(x)) for x in momentum_maps]
        pull, count = pulls(keys, (views.box1, views.box2), self.config.threshold)
        return Targets(
            pull, count.mean(dtype=torch.float32), instance_keys(self.momentum_encoder, self.config, momentum_maps)
        )

    def one_view(self, views: Views, targets: Targets, view: int) -> dict[str, Tensor]:
        """Return "loss", "feature_std" of the projections and "positives" (mean number of positive pairs per image)."""
        maps = self.backbone((views.view1, views.view2)[view])  # C5 (B, backbone.channels, H, W)
        projection = self.projector(maps)  # (B, C, H, W)
        query = unit(self.propagation(projection))
        scalars = {
            "loss": (query * targets.pull[view]).sum(),
            "feature_std": feature_std(projection),
            "positives": targets.positives,
        }
        return add_instance_loss(self, self.config, maps, targets.instance, view, scalars)
