"""What the engine expects of a pre-training method.

Shapes: B batch, C channels, (H, W) map of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.models.resnet import ResNet
from pretrain.models.target import Target


class Method(nn.Module):
    """Student trunk, heads and loss of one method. Subclasses have a frozen dataclass `Config` with the method's knobs.

    The trunk is what is exported. A method with a slowly moving copy of the student keeps it under `target`
    (`pretrain.models.target.Target`).
    """

    title: ClassVar[str]  # one line for lists of methods
    target: Target  # of those methods that have one

    @dataclass(frozen=True)
    class Config:
        """No knobs."""

    def __init__(self, trunk: ResNet, config: Any, total_steps: int) -> None:
        """``total_steps``: length of the target's momentum schedule in optimiser updates."""
        super().__init__()
        self.trunk, self.config = trunk, config

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Scalars by name: "loss" carries the gradient, the others ("feature_std" among them) are logged."""
        raise NotImplementedError

    def update_target(self) -> None:
        """Move the target, if there is one, towards the student. Called once per optimiser update, before `forward`."""
        if hasattr(self, "target"):
            self.target.update(self)


def feature_std(features: Tensor) -> Tensor:
    """How far features (B, C) or (B, C, H, W) are from having collapsed: 0 all the same, 1 uniform on the sphere.

    Standard deviation of the L2-normalised features over batch and cells, averaged over channels, times √C. Detached.
    """
    samples = unit(features.detach()).transpose(0, 1).flatten(1)  # (C, B·H·W)
    return samples.std(dim=1, correction=0).mean() * samples.shape[0] ** 0.5
