"""Supervised training with labels: the baseline of all transfer tables.

Shapes: B batch of this process.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pixbench.errors import UserError
from pretrain.data.views import Views
from pretrain.losses.instance import cross_entropy
from pretrain.methods.base import Method, feature_std
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.heads import LinearHead


def check_labels(low: int, high: int, classes: int) -> None:
    """Raise UserError if labels from ``low`` to ``high`` are missing or not below ``classes``."""
    if high < 0:
        raise UserError("this method needs labels, but the images have none; use data.layout class_folder")
    if low < 0:
        raise UserError(
            "this method needs a label for every image, but some have none; leave those out, or use method cds with "
            "method.semi_supervised true"
        )
    if high >= classes:
        raise UserError(
            f"an image has label {high}, but method.classes is {classes}; set it to the number of image folders"
        )


def check_classes(classes: int) -> None:
    """Raise UserError if there is nothing to tell apart."""
    if classes < 2:
        raise UserError(
            f"method.classes is {classes}; it must be at least 2, because the loss of one class is always 0"
        )


class Supervised(Method):
    """Cross-entropy of a linear classifier on the average of C5. Only view 1 is used."""

    title = "Supervised: cross-entropy with class labels"

    @dataclass(frozen=True)
    class Config:
        """Settings of supervised training.

        Args:
            classes: number of classes, at least the number of image folders.
        """

        classes: int = 1000

    config: Config

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        check_classes(config.classes)
        self.classifier = LinearHead(backbone.channels, config.classes)

    def check_labels(self, low: int, high: int) -> None:
        """Raise UserError if labels from ``low`` to ``high`` are missing or not below the number of classes."""
        check_labels(low, high, self.config.classes)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss" in [0, ∞), "feature_std" of the pooled features and "accuracy".

        Before training the loss is about ln(classes).
        """
        maps = self.backbone(views.view1)
        loss, accuracy = cross_entropy(self.classifier(maps), views.label)
        return {"loss": loss, "feature_std": feature_std(maps.mean(dim=(2, 3))), "accuracy": accuracy}
