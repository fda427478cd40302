"""SimCLR: contrastive loss within the batch (Chen et al., arXiv 2002.05709).

Shapes: B batch of this process, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.instance import nt_xent
from pretrain.losses.qscore import q_regulariser
from pretrain.methods.base import Method, feature_std
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.heads import PooledHead


class SimCLR(Method):
    """SimCLR: one network for both views; each image is contrasted with all other images of all processes.

    As in the authors' TensorFlow code, both views share one forward pass and therefore BN statistics, and the projector
    has BN after both layers (many PyTorch ports leave it out). BN is synchronised as in their code; the engine converts
    the model for it. With ``q_weight`` the averaged C5 is regularised by its Q-score.
    """

    title = "SimCLR: contrastive loss within the batch"

    @dataclass(frozen=True)
    class Config:
        """Settings of SimCLR, with the values of the paper.

        Args:
            temperature: softmax temperature.
            hidden: width of the projector's hidden layer.
            dim: width of the projector's output.
            q_weight: λ, weight of the Q-score regulariser; 0 leaves it out. Its paper fine-tunes pre-trained networks with 1e-4.
        """

        temperature: float = 0.1
        hidden: int = 2048
        dim: int = 128
        q_weight: float = 0.0

    config: Config

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = PooledHead(backbone.channels, config.hidden, config.dim, batch_norm=True)

    @classmethod
    def compares_images(cls, settings: Any) -> bool:
        """Return True: the other images are the negatives."""
        return True

    @classmethod
    def values_per_image(cls, settings: Any, side: int) -> int:
        """Return 2: both views go through the network together, and the smallest batch norm has one value of each."""
        return 2

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss", "feature_std" and "accuracy", the fraction of images nearest to their other view.

        Before training the loss is about ln(2RB − 1) with R processes. With the regulariser there are also "loss_contrast",
        the loss without it, and "q_score", the mean Q-score.
        """
        maps = self.backbone(torch.cat([views.view1, views.view2]))
        features = unit(self.projector(maps))  # (2B, C)
        view1, view2 = features.chunk(2)
        loss, accuracy = nt_xent(view1, view2, self.config.temperature)
        scalars = {"loss": loss, "feature_std": feature_std(features), "accuracy": accuracy}
        if self.config.q_weight:
            regulariser, q_score = q_regulariser(maps.mean(dim=(2, 3)))
            scalars |= {"loss_contrast": loss.detach(), "q_score": q_score}
            scalars["loss"] = loss + self.config.q_weight * regulariser
        return scalars
