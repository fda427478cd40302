"""PixPro on a feature pyramid and on the first layers of a detector's head (arXiv 2011.10043, text on FPN and head).

Shapes: B batch, F channels of the pyramid, C channels of the projection; level l has a map (H_l, W_l) of
N_l = H_l · W_l cells. The paper describes this training; its authors released neither code nor weights for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.data.views import Views
from pretrain.losses import unit
from pretrain.losses.pixel import pulls
from pretrain.methods.base import TwoPassMethod, feature_std
from pretrain.methods.pixpro import PixPro, Targets
from pretrain.models.feature_network import FeatureNetwork, needed
from pretrain.models.fpn import FPN, Tower
from pretrain.models.heads import ConvHead
from pretrain.models.instance_branch import add_instance_heads, add_instance_loss, instance_keys
from pretrain.models.momentum_encoder import MomentumEncoder
from pretrain.models.ppm import PixelPropagation

Head = Literal["fcos", "retinanet"]
"""Detector whose head is pre-trained."""


class PixProFPN(TwoPassMethod):
    """PixPro on a feature pyramid: the mean of PixPro's loss over the levels P3..P6.

    The student is backbone -> FPN -> projector -> PPM, the momentum encoder backbone -> FPN -> projector. All levels
    share one projector and one PPM; batch norm in the projector normalises each level separately. T is measured in the
    cell diagonals of each level. The loss lies between −4 and +4, as in PixPro. An optional instance branch works on C5.
    """

    title = "PixPro on a feature pyramid (P3-P6): pre-train backbone and FPN"
    exports: ClassVar[tuple[str, ...]] = ("backbone", "fpn")

    @dataclass(frozen=True)
    class Config(PixPro.Config):
        """Settings of PixPro and the width of the pyramid.

        Args:
            threshold: T, distance below which two cells are a positive pair, in cell diagonals of their level.
            instance: additional loss between whole images, on C5: "none", "contrastive" (the paper's, as SimCLR with a
                momentum encoder) or "regression" (the official code's, as BYOL).
            channels: channels of the pyramid; the detector must have the same number.
        """

        channels: int = 256

    config: Config
    networks: tuple[str, ...] = ("backbone", "fpn", "projector")
    """Sub-modules that the momentum encoder copies, without the instance branch."""

    def __init__(self, backbone: FeatureNetwork, config: Config, total_steps: int) -> None:
        super().__init__(backbone, config, total_steps)
        channels = needed(backbone, ("layer2", "layer3", "layer4"), self.title.partition(" (")[0].partition(":")[0])
        backbone.learn_for(channels)
        self.fpn = FPN(channels, config.channels)
        self.head = self.make_head(config)
        self.projector = ConvHead(config.channels, config.hidden, config.dim)
        self.propagation = PixelPropagation(config.dim, config.layers, config.gamma, config.clamp)
        self.momentum_encoder = MomentumEncoder(
            self, (*self.networks, *add_instance_heads(self, channels["layer4"], config)), config.momentum, total_steps
        )

    @classmethod
    def compares_images(cls, settings: Any) -> bool:
        """Return whether there is an instance branch with negatives."""
        return settings.instance == "contrastive"

    @classmethod
    def values_per_image(cls, settings: Any, side: int) -> int:
        """Return the number of cells of P6, which has half the side of C5, rounded up."""
        return (-(-side // 2)) ** 2

    def make_head(self, config: Any) -> nn.Module:
        """Return the module between pyramid and projector."""
        return nn.Identity()

    def targets(self, views: Views) -> tuple[dict[str, Targets], tuple[Tensor, Tensor] | None]:
        """Return what the momentum encoder makes of both views on each level, and the keys of the instance branch."""
        backbone = cast(FeatureNetwork, self.momentum_encoder.backbone)
        momentum_maps = [backbone.forward_stages(x) for x in (views.view1, views.view2)]
        levels = [project(self.momentum_encoder, x) for x in momentum_maps]
        boxes, found = (views.box1, views.box2), {}
        for level in levels[0]:
            pull, count = pulls([unit(x[level]) for x in levels], boxes, self.config.threshold)
            found[level] = Targets(pull, count.mean(dtype=torch.float32), None)
        return found, instance_keys(self.momentum_encoder, self.config, [x["layer4"] for x in momentum_maps])

    def one_view(self, views: Views, targets: Any, view: int) -> dict[str, Tensor]:
        """Return "loss" and scalars for the log.

        "loss_p3".. are the losses of the levels. "feature_std" of the projections and "positives", the number of
        positive pairs per image, are means over the levels.
        """
        of_levels, of_instance = targets
        maps = self.backbone.forward_stages((views.view1, views.view2)[view])
        projections = project(self, maps)  # (B, C, H_l, W_l) for each level
        losses = {
            level: (unit(self.propagation(x)) * of_levels[level].pull[view]).sum() for level, x in projections.items()
        }
        scalars = {
            "loss": torch.stack([*losses.values()]).mean(),
            **{f"loss_{level}": loss.detach() for level, loss in losses.items()},
            "feature_std": torch.stack([feature_std(x) for x in projections.values()]).mean(),
            "positives": torch.stack([of_level.positives for of_level in of_levels.values()]).mean(),
        }
        return add_instance_loss(self, self.config, maps["layer4"], of_instance, view, scalars)


class PixProFPNHead(PixProFPN):
    """`PixProFPN` with the first three convolutions of a detector's head between pyramid and projector.

    One tower is trained; the towers of a detector for classes and for boxes both start from it.
    """

    title = "PixPro on a feature pyramid and head: pre-train backbone, FPN and three head convolutions"
    exports = ("backbone", "fpn", "head")

    @dataclass(frozen=True)
    class Config(PixProFPN.Config):
        """Settings of PixPro, the width of the pyramid and the kind of head.

        Args:
            channels: channels of the pyramid and the head; the detector must have the same number.
            head: detector of the head: "fcos" (the paper's; group norm after each convolution), "retinanet" (no norm).
        """

        head: Head = "fcos"

    config: Config
    networks = ("backbone", "fpn", "head", "projector")

    def make_head(self, config: Any) -> nn.Module:
        """Return the tower of the detector ``config.head``. UserError if its name is not known."""
        if config.head not in get_args(Head):
            raise UserError(f"method.head '{config.head}' is not known; choose {', '.join(get_args(Head))}")
        return Tower(config.channels, norm=config.head == "fcos")


def project(networks: nn.Module, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the projections (B, C, H_l, W_l) of all levels from a backbone's ``maps``.

    ``networks`` is the student or the momentum encoder.
    """
    head = getattr(networks, "head", nn.Identity())
    projector = networks.get_submodule("projector")
    return {level: projector(head(x)) for level, x in networks.get_submodule("fpn")(maps).items()}
