"""PixContrast: contrastive loss between the cells of two views (Xie et al., arXiv 2011.10043, Section 3.1).

Shapes: B batch, C channels, (H, W) map of cells, N = H·W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.pixel import contrast_one_way
from pretrain.methods.base import TwoPassMethod, feature_std
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.heads import ConvHead
from pretrain.models.instance_branch import PixelConfig, add_instance_heads, add_instance_loss, instance_keys
from pretrain.models.momentum_encoder import MomentumEncoder


@dataclass(frozen=True)
class ContrastConfig:
    """Settings that only PixContrast has.

    Args:
        temperature: τ, temperature of the softmax over the cells of the other view.
    """

    temperature: float = 0.3


class Targets(NamedTuple):
    """What the momentum encoder gives to both views."""

    keys: tuple[Tensor, Tensor]
    """Unit vectors (B, C, H, W) of each view."""
    instance: tuple[Tensor, Tensor] | None
    """Keys of the instance branch."""


class PixContrast(TwoPassMethod):
    """PixContrast: contrast the student's cells with the momentum encoder's cells of the other view, in both directions.

    Both the student (x) and the momentum encoder (x') are backbone -> projector. Loss: pixel_contrast(x1, x2') +
    pixel_contrast(x2, x1'), in [0, ∞). Before training it is about twice the mean of ln(N / positives of a cell). The
    official code does not contain this method: networks, momentum encoder and handling of the views are those of PixPro
    without the propagation module; the loss is that of the paper.
    """

    title = "PixContrast: contrastive loss between the cells of two views"
    least_side = 2

    @dataclass(frozen=True)
    class Config(PixelConfig, ContrastConfig):
        """Settings of PixContrast, with the values of the paper. The fields of the last base come first.

        Args:
            threshold: T, distance below which two cells are a positive pair, in cell diagonals; others are negative.
        """

    config: Config

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = ConvHead(backbone.channels, config.hidden, config.dim)
        averaged = ("backbone", "projector", *add_instance_heads(self, backbone.channels, config))
        self.momentum_encoder = MomentumEncoder(self, averaged, config.momentum, total_steps)

    @classmethod
    def compares_images(cls, settings: Any) -> bool:
        """Return whether there is an instance branch with negatives."""
        return settings.instance == "contrastive"

    def targets(self, views: Views) -> Targets:
        """Return what the momentum encoder makes of both views."""
        momentum_maps = [self.momentum_encoder.backbone(x) for x in (views.view1, views.view2)]
        key1, key2 = (unit(self.momentum_encoder.projector(x)) for x in momentum_maps)
        return Targets((key1, key2), instance_keys(self.momentum_encoder, self.config, momentum_maps))

    def one_view(self, views: Views, targets: Targets, view: int) -> dict[str, Tensor]:
        """Return "loss", "feature_std" of the projections and "positives" (mean number of positive pairs per image)."""
        maps = self.backbone((views.view1, views.view2)[view])  # C5 (B, backbone.channels, H, W)
        query = unit(self.projector(maps))  # (B, C, H, W)
        boxes = (views.box1, views.box2)
        loss, count = contrast_one_way(
            query, targets.keys[1 - view], boxes[view], boxes[1 - view], self.config.threshold, self.config.temperature
        )
        scalars = {"loss": loss, "feature_std": feature_std(query), "positives": count.mean(dtype=torch.float32)}
        return add_instance_loss(self, self.config, maps, targets.instance, view, scalars)
