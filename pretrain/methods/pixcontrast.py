"""PixContrast: contrast between the cells of an image (Xie et al., arXiv 2011.10043, Section 3.1).

Shapes: B batch, C channels, (H, W) map of cells, N = H·W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.pixel import contrast_both_ways
from pretrain.methods.base import MomentumMethod, feature_std
from pretrain.models.heads import ConvHead
from pretrain.models.instance_branch import PixelConfig, add_instance_heads, add_instance_loss
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.resnet import ResNet


@dataclass(frozen=True)
class ContrastConfig:
    """What PixContrast has beside the shared settings.

    Args:
        temperature: τ of the softmax over the cells of the other view.
    """

    temperature: float = 0.3


class PixContrast(MomentumMethod):
    """Student backbone -> projector against target backbone -> projector, for both views and both ways.

    Loss: pixel_contrast(x1, x2') + pixel_contrast(x2, x1'), from 0. Before anything is learned it is about twice the
    mean of ln(N / positives of a cell). The official code does not have this method: networks, target and handling of
    the views are PixPro's without the propagation module, the loss is the paper's.
    """

    title = "PixContrast: contrast between the cells of an image"

    @dataclass(frozen=True)
    class Config(PixelConfig, ContrastConfig):
        """Settings of PixContrast, with the values of the paper. Fields of the last base come first.

        Args:
            threshold: T: two cells are a positive pair below this distance, in cell diagonals, else a negative pair.
        """

    config: Config

    def __init__(self, backbone: ResNet, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = ConvHead(backbone.channels, config.hidden, config.dim)
        averaged = ("backbone", "projector", *add_instance_heads(self, backbone.channels, config))
        self.momentum_encoder = MomentumEncoder(self, averaged, config.momentum, total_steps)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`views` -> "loss", "feature_std" of the projections, "positives": mean number of positive pairs an image."""
        images, boxes = (views.view1, views.view2), (views.box1, views.box2)
        maps = [self.backbone(x) for x in images]  # C5 (B, backbone.channels, H, W) each
        queries = [unit(self.projector(x)) for x in maps]  # (B, C, H, W) each
        with torch.no_grad():
            momentum_maps = [self.momentum_encoder.backbone(x) for x in images]
            keys = [unit(self.momentum_encoder.projector(x)) for x in momentum_maps]
        loss, mask = contrast_both_ways(queries, keys, boxes, self.config.threshold, self.config.temperature)
        scalars = {
            "loss": loss,
            "feature_std": feature_std(torch.cat(queries)),
            "positives": mask.sum() / len(mask),
        }
        return add_instance_loss(self, self.momentum_encoder, self.config, maps, momentum_maps, scalars)
