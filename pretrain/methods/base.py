"""What the engine expects of a pre-training method.

Shapes: B batch, C channels, (H, W) map of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.resnet import ResNet


class Method(nn.Module):
    """Student backbone, heads and loss of one method. Subclasses have a frozen dataclass `Config` with the method's settings.

    What is converted later is named in `exports`. Methods with a momentum encoder inherit from `MomentumMethod`.
    """

    title: ClassVar[str]
    """One line for lists of methods."""
    exports: ClassVar[tuple[str, ...]] = ("backbone",)
    """Sub-modules that conversion takes: "backbone", "fpn" (a feature pyramid), "head" (of a detector)."""

    @dataclass(frozen=True)
    class Config:
        """No settings."""

    @property
    def left_behind(self) -> list[str]:
        """Names of the sub-modules and buffers that conversion leaves out, the momentum encoder's copies aside."""
        names = dict.fromkeys(name.partition(".")[0] for name in self.state_dict())
        return [name for name in names if name not in (*self.exports, "momentum_encoder")]

    def __init__(self, backbone: ResNet, config: Any, total_steps: int) -> None:
        """``total_steps``: length of the momentum encoder's schedule in optimiser updates."""
        super().__init__()
        self.backbone, self.config = backbone, config

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Scalars by name: "loss" carries the gradient, the others ("feature_std" among them) are logged."""
        raise NotImplementedError

    def update_momentum_encoder(self) -> None:
        """Move the momentum encoder, if there is one, towards the student; called before `forward`, once per update."""


class MomentumMethod(Method):
    """A method with a momentum encoder, which its ``__init__`` puts at `momentum_encoder`."""

    momentum_encoder: MomentumEncoder

    def update_momentum_encoder(self) -> None:
        """Move the momentum encoder towards the student."""
        self.momentum_encoder.update(self)


def feature_std(features: Tensor) -> Tensor:
    """How far features (B, C) or (B, C, H, W) are from having collapsed: 0 all the same, 1 uniform on the sphere.

    Standard deviation of the L2-normalised features over batch and cells, averaged over channels, times √C. Detached.
    """
    samples = unit(features.detach()).transpose(0, 1).flatten(1)  # (C, B·H·W)
    return samples.std(dim=1, correction=0).mean() * samples.shape[0] ** 0.5
