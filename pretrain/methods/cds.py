"""Contrastive Deep Supervision: contrastive losses after the earlier stages (Zhang et al., ECCV 2022, arXiv 2207.05306).

Shapes: B batch of this process, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pixbench.errors import UserError
from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.instance import cross_entropy, nt_xent, sup_con
from pretrain.methods.base import Method, feature_std
from pretrain.methods.supervised import check_classes, check_labels
from pretrain.models.feature_network import FeatureNetwork, needed
from pretrain.models.heads import LinearHead, StageHead

STAGES = ("layer1", "layer2", "layer3")
"""Stages with a contrastive loss: all before the last one."""

Contrast = Literal["simclr", "supcon"]
"""Kind of contrastive loss."""


class CDS(Method):
    """Cross-entropy of view 1 after the last stage, and a contrastive loss of both views after each earlier stage.

    L = L_CE + λ Σ_stages L_contrast. Both views share one forward pass and therefore BN statistics; the classifier sees
    only view 1 (both as in the authors' code). The projection heads are used for training only and are not exported.
    The authors' ImageNet code also has the contrastive loss on the average of C5, and compares images within each GPU.
    Here, as in the text of the method, it is only on the earlier stages, and images of all processes are compared.
    """

    title = "Contrastive Deep Supervision: cross-entropy, and a contrastive loss after each earlier stage"

    @dataclass(frozen=True)
    class Config:
        """Settings of Contrastive Deep Supervision, with the values of the authors' ImageNet code.

        Args:
            classes: number of classes, at least the number of image folders.
            contrast: "supcon" (images of one class are positives) or "simclr" (two views of one image are positives).
            weight: λ, weight of the contrastive loss of each stage.
            temperature: softmax temperature of the contrastive loss.
        """

        classes: int = 1000
        contrast: Contrast = "supcon"
        weight: float = 0.1
        temperature: float = 0.07

    config: Config

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        check_classes(config.classes)
        if config.contrast not in get_args(Contrast):
            raise UserError(f"method.contrast '{config.contrast}' is not known; choose {', '.join(get_args(Contrast))}")
        channels = needed(backbone, (*STAGES, "layer4"), self.title.partition(" (")[0].partition(":")[0])
        self.classifier = LinearHead(channels["layer4"], config.classes)
        for index, stage in enumerate(STAGES):
            to_come = len(STAGES) - index
            self.add_module(f"projector_{stage}", StageHead(channels[stage], to_come))

    @classmethod
    def compares_images(cls, settings: Any) -> bool:
        """Return True: the other images are the negatives."""
        return True

    @classmethod
    def values_per_image(cls, settings: Any, side: int) -> int:
        """Return 2: both views go through the network together, and the smallest batch norm has one value of each."""
        return 2

    def check_labels(self, low: int, high: int) -> None:
        """Raise UserError if labels from ``low`` to ``high`` are missing or not below the number of classes."""
        check_labels(low, high, self.config.classes)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss" in [0, ∞) and scalars for the log.

        "loss_class" and "loss_contrast" (sum over stages) are the parts of the loss, "feature_std" is that of the
        pooled features, "accuracy" that of the classifier.
        """
        config = self.config
        maps = self.backbone.forward_stages(torch.cat([views.view1, views.view2]))  # 2B images
        last = maps["layer4"].chunk(2)[0]
        loss_class, accuracy = cross_entropy(self.classifier(last), views.label)
        loss_contrast = torch.zeros_like(loss_class)
        for stage in STAGES:
            view1, view2 = unit(self.get_submodule(f"projector_{stage}")(maps[stage])).chunk(2)
            if config.contrast == "supcon":
                loss_contrast = loss_contrast + sup_con(view1, view2, views.label, config.temperature)
            else:
                loss_contrast = loss_contrast + nt_xent(view1, view2, config.temperature)[0]
        return {
            "loss": loss_class + config.weight * loss_contrast,
            "loss_class": loss_class.detach(),
            "loss_contrast": loss_contrast.detach(),
            "feature_std": feature_std(last.mean(dim=(2, 3))),
            "accuracy": accuracy,
        }
