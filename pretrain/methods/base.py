"""Base classes of the pre-training methods: the interface that the engine uses.

Shapes: B batch, C channels, (H, W) map of cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.momentum_encoder import MomentumEncoder


class Method(nn.Module):
    """Student backbone, heads and loss of one method.

    Subclasses define the frozen dataclass `Config` with the settings of the method, and name in `exports` the
    sub-modules that can be converted later. Methods with a momentum encoder inherit from `MomentumMethod`.
    """

    title: ClassVar[str]
    """One-line description for lists of methods."""
    exports: ClassVar[tuple[str, ...]] = ("backbone",)
    """Sub-modules that conversion exports: "backbone", "fpn" (a feature pyramid), "head" (of a detector)."""
    needs_tokens: ClassVar[bool] = False
    """Whether the backbone must have a class token and patch tokens, as a ViT has."""
    takes_local_crops: ClassVar[bool] = False
    """Whether the loss uses `Views.local`."""
    least_side: ClassVar[int] = 1
    """Smallest number of cells on a side of C5 with which the loss is not always 0."""

    steps_per_epoch: int = 1
    """Number of steps in an epoch; the run sets it."""

    @dataclass(frozen=True)
    class Config:
        """No settings."""

    @classmethod
    def compares_images(cls, settings: Any) -> bool:
        """Return whether the loss compares the images of one part of a batch (of all processes) with one another.

        Such a loss is zero for a single image. ``settings`` is a `Config`.
        """
        return False

    @classmethod
    def values_per_image(cls, settings: Any, side: int) -> int:
        """Return the smallest number of values that an image gives to each channel of a batch norm.

        ``settings`` is a `Config`; C5 has ``side`` × ``side`` cells.
        """
        return side**2

    @property
    def left_behind(self) -> list[str]:
        """Names of the sub-modules and buffers that conversion leaves out. The momentum encoder is not in this list."""
        names = dict.fromkeys(name.partition(".")[0] for name in self.state_dict())
        return [name for name in names if name not in (*self.exports, "momentum_encoder")]

    def __init__(self, backbone: FeatureNetwork, config: Any, total_steps: int) -> None:
        """Store backbone and settings. ``total_steps`` is the length of the momentum encoder's schedule in steps.

        Raises:
            UserError: The method needs tokens, and ``backbone`` has none.
        """
        super().__init__()
        if self.needs_tokens and not backbone.has_tokens:
            raise UserError(
                f"{type(self).__name__} needs the class token and the patch tokens of a Vision Transformer, which this backbone "
                "does not have; choose one, for example --backbone.name timm:vit_small_patch16_224"
            )
        self.backbone, self.config = backbone, config

    def check_labels(self, low: int, high: int) -> None:
        """Raise UserError if the labels of the images, from ``low`` to ``high``, do not fit; −1 stands for none."""

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return scalars by name: "loss" carries the gradient; the others, such as "feature_std", are only logged."""
        raise NotImplementedError

    def update_momentum_encoder(self) -> None:
        """Move the momentum encoder, if any, towards the student; called once per step, before `forward`."""

    def frozen_in_step(self) -> list[nn.Parameter]:
        """Return the parameters that the current step leaves as they are; called after the backward pass."""
        return []


class MomentumMethod(Method):
    """Method with a momentum encoder; ``__init__`` of a subclass sets `momentum_encoder`."""

    momentum_encoder: MomentumEncoder

    def update_momentum_encoder(self) -> None:
        """Move the momentum encoder towards the student."""
        self.momentum_encoder.update(self)


class TwoPassMethod(MomentumMethod):
    """Method whose loss is the sum of one term for each view, in which the other view appears only as the momentum encoder's.

    So the engine can send one view after the other through the student, each with a backward pass of its own. That has the
    same gradient as both together, but keeps the feature maps of only one view in memory.
    """

    def targets(self, views: Views) -> Any:
        """Return all that the losses need from the momentum encoder, without a gradient."""
        raise NotImplementedError

    def one_view(self, views: Views, targets: Any, view: int) -> dict[str, Tensor]:
        """Return the scalars of ``view`` (0 or 1): "loss" is its term of the loss, with the gradient; see `add_up`."""
        raise NotImplementedError

    def forward(self, views: Views, targets: Any = None, view: int | None = None) -> dict[str, Tensor]:
        """Return the scalars of both views together, or of one ``view`` alone, for which ``targets`` are needed."""
        if view is not None:
            return self.one_view(views, targets, view)
        with torch.no_grad():
            targets = self.targets(views)
        return add_up([self.one_view(views, targets, view) for view in (0, 1)])


def add_up(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Combine the scalars of both views: what is called "loss..." is added, of all else the mean is taken."""
    return {
        name: torch.stack([part[name] for part in parts]).sum(0) / (1 if name.startswith("loss") else len(parts))
        for name in parts[0]
    }


def feature_std(features: Tensor) -> Tensor:
    """Return the spread of ``features`` (B, C) or (B, C, H, W): 0 if all equal (collapsed), 1 if uniform on a sphere.

    This is the standard deviation of the L2-normalised features over batch and cells, averaged over channels, times √C.
    The result carries no gradient.
    """
    samples = unit(features.detach()).transpose(0, 1).flatten(1)  # (C, B·H·W)
    return samples.std(dim=1, correction=0).mean() * samples.shape[0] ** 0.5
