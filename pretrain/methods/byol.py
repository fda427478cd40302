"""BYOL: predict the momentum encoder's view of an image, without negatives (Grill et al., arXiv 2006.07733).

Shapes: B batch of this process, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.instance import cosine_regression
from pretrain.methods.base import TwoPassMethod, feature_std
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.heads import VectorHead
from pretrain.models.momentum_encoder import MomentumEncoder


class BYOL(TwoPassMethod):
    """BYOL: the student predicts the momentum encoder's projection of the other view, in both directions.

    The student is backbone -> projector -> predictor (p), the momentum encoder backbone -> projector (z').
    Loss: ‖p1 − z2'‖² + ‖p2 − z1'‖² of unit vectors (Eq. 2), in [0, 8]: 0 if all agree, 4 if they are unrelated.
    The views go through the networks one after the other, so BN statistics are per view. Differences from the authors'
    JAX code: the momentum encoder starts as a copy of the student, not with weights of its own, and it is updated
    before a step instead of after it.
    """

    title = "BYOL: predict the momentum encoder's view of an image"

    @dataclass(frozen=True)
    class Config:
        """Settings of BYOL, with the values of the paper for 1000 epochs.

        Args:
            momentum: fraction of the old weights that the momentum encoder keeps per step, at the start; it grows to 1
                along a cosine. Use 0.99 for 300 epochs or fewer.
            hidden: width of the hidden layer in projector and predictor.
            dim: width of the output of projector and predictor.
        """

        momentum: float = 0.996
        hidden: int = 4096
        dim: int = 256

    config: Config

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        self.projector = VectorHead(backbone.channels, config.hidden, config.dim)
        self.predictor = VectorHead(config.dim, config.hidden, config.dim)
        self.momentum_encoder = MomentumEncoder(self, ("backbone", "projector"), config.momentum, total_steps)

    @classmethod
    def values_per_image(cls, settings: Any, side: int) -> int:
        """Return 1: the heads have batch norm on one vector for each image, and a view goes through them alone."""
        return 1

    def targets(self, views: Views) -> list[Tensor]:
        """Return the momentum encoder's projections of both views, unit vectors (B, C)."""
        encoder = self.momentum_encoder
        return [unit(encoder.projector(encoder.backbone(x).mean(dim=(2, 3)))) for x in (views.view1, views.view2)]

    def one_view(self, views: Views, targets: list[Tensor], view: int) -> dict[str, Tensor]:
        """Return "loss" and "feature_std" of the projections."""
        projection = self.projector(self.backbone((views.view1, views.view2)[view]).mean(dim=(2, 3)))  # (B, C)
        loss = 2 + cosine_regression(unit(self.predictor(projection)), targets[1 - view])
        return {"loss": loss, "feature_std": feature_std(projection)}
