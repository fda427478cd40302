"""Contrastive Deep Supervision: contrastive losses after the stages (Zhang et al., ECCV 2022, arXiv 2207.05306).

Shapes: B batch of this process, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pixbench.errors import UserError
from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.distillation import distance, soft_cross_entropy
from pretrain.losses.instance import cross_entropy, labelled_cross_entropy, nt_xent, sup_con
from pretrain.methods.base import Method, feature_std
from pretrain.methods.supervised import check_classes, check_labels
from pretrain.models.feature_network import FeatureNetwork, needed
from pretrain.models.heads import LinearHead, StageHead
from pretrain.models.momentum_encoder import without_noise

STAGES = ("layer1", "layer2", "layer3")
"""Stages that always have a contrastive loss: all before the last one."""
LAST = "layer4"

Contrast = Literal["simclr", "supcon"]
"""Kind of contrastive loss."""


class CDS(Method):
    """Cross-entropy of view 1 after the last stage, and a contrastive loss of both views after each earlier stage.

    L = L_CE + λ Σ_stages L_contrast. Both views share one forward pass and therefore BN statistics; the classifier sees
    only view 1 (both as in the authors' code). The projection heads are used for training only and are not exported.
    The authors' code also has the contrastive loss on the average of C5 (``last_stage``), which the paper's equation leaves out,
    and it compares images within each GPU. Here images of all processes are compared.

    With a teacher (`take_teacher`), L also has the cross-entropy of view 1 with the teacher's classes and, for each stage with a
    contrastive loss, the distance of the embeddings to the teacher's: `distillation`.
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
            last_stage: whether the average of C5 has a contrastive loss too, as in the authors' code.
            semi_supervised: whether some images may have no label (−1); these have the contrastive loss alone, without
                positives in other images.
            teacher: checkpoint.pth of a run of cds to distil from; empty for none.
            distill_weight: weight of the distance to the teacher's embeddings of each stage.
            distill_temperature: softmax temperature of the cross-entropy with the teacher's classes.
        """

        classes: int = 1000
        contrast: Contrast = "supcon"
        weight: float = 0.1
        temperature: float = 0.07
        last_stage: bool = False
        semi_supervised: bool = False
        teacher: str = ""
        distill_weight: float = 0.5
        distill_temperature: float = 1.0

    config: Config
    teacher: CDS | None

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        check_classes(config.classes)
        if config.contrast not in get_args(Contrast):
            raise UserError(f"method.contrast '{config.contrast}' is not known; choose {', '.join(get_args(Contrast))}")
        self.stages = (*STAGES, LAST) if config.last_stage else STAGES
        channels = needed(backbone, (*STAGES, LAST), self.title.partition(":")[0])
        backbone.learn_for(channels)
        self.classifier = LinearHead(channels[LAST], config.classes)
        self.widths = {LAST: channels[LAST]}
        """Number of channels of the embedding of each stage: all are the same for a ResNet."""
        for index, stage in enumerate(STAGES):
            head = StageHead(channels[stage], len(STAGES) - index)
            self.add_module(f"projector_{stage}", head)
            self.widths[stage] = head.out
        self.teacher = None
        self.adaptation = nn.ModuleDict()

    def take_teacher(self, teacher: CDS) -> None:
        """Distil from ``teacher`` from now on. It becomes a part of this method, is not trained and stays as it is.

        As in the authors' code, its batch norm uses the statistics of the batch, and if it has another number of channels,
        a linear layer for each stage maps the student's embedding to the teacher's space.
        """
        for norm in teacher.modules():
            if isinstance(norm, _BatchNorm):
                norm.track_running_stats = False  # so the batch leaves no trace in the running statistics
        self.teacher = without_noise(teacher.requires_grad_(False))
        own, wanted = self.widths, teacher.widths
        self.adaptation.update(
            {stage: nn.Linear(own[stage], wanted[stage]) for stage in self.stages if own[stage] != wanted[stage]}
        )

    def train(self, mode: bool = True) -> CDS:
        """Change the mode; dropout and the like stay off in the teacher."""
        super().train(mode)
        if self.teacher is not None:
            without_noise(self.teacher)
        return self

    @classmethod
    def compares_images(cls, settings: Any) -> bool:
        """Return True: the other images are the negatives."""
        return True

    @classmethod
    def values_per_image(cls, settings: Any, side: int) -> int:
        """Return 2: both views go through the network together, and the smallest batch norm has one value of each."""
        return 2

    def check_labels(self, low: int, high: int) -> None:
        """Raise UserError if labels from ``low`` to ``high`` are missing or not below the number of classes.

        With ``semi_supervised``, some may be missing, but not all.
        """
        check_labels(max(low, 0) if self.config.semi_supervised else low, high, self.config.classes)

    def embeddings(self, maps: dict[str, Tensor], stages: Sequence[str]) -> dict[str, Tensor]:
        """Return the L2-normalised embedding (N, C of C5) of each of ``stages``, for the maps of N images."""
        return {
            stage: unit(
                maps[stage].mean((2, 3)) if stage == LAST else self.get_submodule(f"projector_{stage}")(maps[stage])
            )
            for stage in stages
        }

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Return "loss" in [0, ∞) and scalars for the log.

        "loss_class" and "loss_contrast" (sum over stages) are the parts of the loss, and with a teacher "loss_distill";
        "feature_std" is that of the pooled features, "accuracy" that of the classifier.
        """
        config, label = self.config, views.label
        images = torch.cat([views.view1, views.view2])  # 2B images
        maps = self.backbone.forward_stages(images)
        last = maps[LAST].chunk(2)[0]
        logits, embeddings = self.classifier(last), self.embeddings(maps, self.stages)
        loss_class, accuracy = (labelled_cross_entropy if config.semi_supervised else cross_entropy)(logits, label)
        if config.semi_supervised:
            label = torch.where(label < 0, -1 - views.image_index, label)  # each such image is a class of its own
        loss_contrast = torch.zeros_like(loss_class)
        for embedding in embeddings.values():
            view1, view2 = embedding.chunk(2)
            if config.contrast == "supcon":
                loss_contrast = loss_contrast + sup_con(view1, view2, label, config.temperature)
            else:
                loss_contrast = loss_contrast + nt_xent(view1, view2, config.temperature)[0]
        loss, parts = loss_class + config.weight * loss_contrast, {}
        if self.teacher is not None:
            loss_distill = self.distillation(self.teacher, images, logits, embeddings)
            loss, parts = loss + loss_distill, {"loss_distill": loss_distill.detach()}
        return {
            "loss": loss,
            "loss_class": loss_class.detach(),
            "loss_contrast": loss_contrast.detach(),
            **parts,
            "feature_std": feature_std(last.mean(dim=(2, 3))),
            "accuracy": accuracy,
        }

    def distillation(self, teacher: CDS, images: Tensor, logits: Tensor, embeddings: dict[str, Tensor]) -> Tensor:
        """Return the loss with respect to ``teacher``.

        Source: `CIFAR/distill.py` and `ImageNet/KD_Contrastive_Deep_Supervision/main.py` of the authors' code.

        Args:
            teacher: the teacher.
            images: both views, (2B, 3, H, W).
            logits: the student's logits of view 1, (B, classes).
            embeddings: its embedding of both views by stage, (2B, C).
        """
        with torch.no_grad():
            maps = teacher.backbone.forward_stages(images)
            wanted, classes = teacher.embeddings(maps, self.stages), teacher.classifier(maps[LAST].chunk(2)[0])
        loss = soft_cross_entropy(logits, classes, self.config.distill_temperature)
        for stage, own in embeddings.items():
            own = self.adaptation[stage](own) if stage in self.adaptation else own
            loss = loss + self.config.distill_weight * distance(own, wanted[stage])
        return loss
