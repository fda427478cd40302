"""Contrastive Deep Supervision: labels at the end, contrast on the way (Zhang et al., ECCV 2022, arXiv 2207.05306).

Shapes: B batch of this process, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pixbench.errors import UserError
from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.instance import cross_entropy, nt_xent, sup_con
from pretrain.methods.base import Method, feature_std
from pretrain.methods.supervised import check_labels
from pretrain.models.heads import LinearHead, StageHead
from pretrain.models.resnet import ResNet

STAGES = ("layer1", "layer2", "layer3")
"""The stages before the last one."""

Contrast = Literal["simclr", "supcon"]


class CDS(Method):
    """Cross-entropy of view 1 after the last stage, and a contrastive loss of both views after each earlier one.

    L = L_CE + λ Σ_stages L_contrast. Both views share one forward pass, hence BN statistics; the classifier sees view 1
    alone (both as in the authors' code). The projection heads serve training only and are dropped at export. The
    authors' ImageNet code adds the same contrast on the average of C5 itself and compares within each GPU; here, as in
    the text of the method, only the earlier stages are contrasted, and over all processes.
    """

    title = "Contrastive Deep Supervision: labels at the end, contrast after each earlier stage"

    @dataclass(frozen=True)
    class Config:
        """Settings of Contrastive Deep Supervision, with the values of the authors' ImageNet code.

        Args:
            classes: number of classes, at least as many as there are folders of images.
            contrast: "supcon" (images of one class belong together) or "simclr" (the views of one image do).
            weight: λ of each stage's contrastive loss.
            temperature: of the softmax.
        """

        classes: int = 1000
        contrast: Contrast = "supcon"
        weight: float = 0.1
        temperature: float = 0.07

    config: Config

    def __init__(self, backbone: ResNet, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        if config.contrast not in get_args(Contrast):
            raise UserError(f"method.contrast '{config.contrast}' is not known; choose {', '.join(get_args(Contrast))}")
        self.classifier = LinearHead(backbone.channels, config.classes)
        for index, stage in enumerate(STAGES):
            to_come = len(STAGES) - index
            self.add_module(f"projector_{stage}", StageHead(backbone.channels // 2**to_come, to_come))

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`views` -> "loss" in [0, ∞), its parts "loss_class" and "loss_contrast" (sum over stages), "feature_std" of
        the pooled features, "accuracy" of the classifier."""
        config = self.config
        check_labels(views.label, config.classes)
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
