"""PixContrast: contrast between the cells of an image (Xie et al., arXiv 2011.10043, Section 3.1).

Shapes: B batch, C channels, (H, W) map of cells, N = H·W.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.geometry import in_intersection, positive_mask
from pretrain.losses.pixel import pixel_contrast
from pretrain.methods.base import Method, feature_std
from pretrain.methods.instance import Instance, add_instance_heads, add_instance_loss
from pretrain.models.heads import ConvHead
from pretrain.models.resnet import ResNet
from pretrain.models.target import Target


class PixContrast(Method):
    """Student trunk -> projector against target trunk -> projector, for both views and both ways.

    Loss: pixel_contrast(x1, x2') + pixel_contrast(x2, x1'), from 0. Before anything is learned it is about twice the
    mean of ln(N / positives of a cell). The official code does not have this method: networks, target and handling of
    the views are PixPro's without the propagation module, the loss is the paper's.
    """

    title = "PixContrast: contrast between the cells of an image"

    @dataclass(frozen=True)
    class Config:
        """Knobs of PixContrast, with the values of the paper.

        Args:
            temperature: τ of the softmax over the cells of the other view.
            threshold: T: two cells are a positive pair below this distance, in cell diagonals, else a negative pair.
            momentum: of the target at the start; it grows to 1 along a cosine.
            hidden: channels between the two layers of the projector.
            dim: channels of the projector's output.
            instance: loss between whole images besides: "none", "contrastive" (the paper's, as SimCLR with a target) or
                "regression" (the official code's, as BYOL).
            alpha: weight α of that loss.
            instance_temperature: of the softmax of "contrastive"; the paper does not name it, this is SimCLR's.
        """

        temperature: float = 0.3
        threshold: float = 0.7
        momentum: float = 0.99
        hidden: int = 4096
        dim: int = 256
        instance: Instance = "none"
        alpha: float = 1.0
        instance_temperature: float = 0.1

    config: Config

    def __init__(self, trunk: ResNet, config: Config, total_steps: int) -> None:
        super().__init__(trunk, config, total_steps)
        self.projector = ConvHead(trunk.channels, config.hidden, config.dim)
        averaged = ("trunk", "projector", *add_instance_heads(self, config))
        self.target = Target(self, averaged, config.momentum, total_steps)

    def update_target(self) -> None:
        self.target.update(self)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`views` -> "loss", "feature_std" of the projections, "positives": mean number of positive pairs an image."""
        images, boxes = (views.view1, views.view2), (views.box1, views.box2)
        maps = [self.trunk(x) for x in images]  # C5 (B, trunk.channels, H, W) each
        queries = [unit(self.projector(x)) for x in maps]  # (B, C, H, W) each
        with torch.no_grad():
            target_maps = [self.target.trunk(x) for x in images]
            keys = [unit(self.target.projector(x)) for x in target_maps]
        shape = (keys[0].shape[2], keys[0].shape[3])
        mask = positive_mask(*boxes, shape, self.config.threshold)  # (B, N of view 1, N of view 2)
        counted = [in_intersection(*boxes, shape), in_intersection(*boxes[::-1], shape)]  # (B, N) each
        loss = pixel_contrast(queries[0], keys[1], mask, counted[0], self.config.temperature) + pixel_contrast(
            queries[1], keys[0], mask.transpose(1, 2), counted[1], self.config.temperature
        )
        scalars = {
            "loss": loss,
            "feature_std": feature_std(torch.cat(queries)),
            "positives": mask.sum() / len(mask),
        }
        return add_instance_loss(self, self.target, self.config, maps, target_maps, scalars)
