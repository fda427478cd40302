"""Backbones by name as the bottom-up network of Detectron2's feature pyramids.

Shapes: B images of H × W pixels, C channels.
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from torch import Tensor

from pixbench.errors import UserError
from pretrain.models.families import is_plain
from pretrain.models.feature_network import needed
from pretrain.models.named_look import look
from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_sizes import check_size
from pretrain.models.named_spec import NamedSpec
from transfer.detection import adamw
from transfer.protocols import names_with
from transfer.weights.expected_shapes import expected

BUILDER = "build_named_fpn_backbone"
"""Name of the builder in Detectron2's registry."""
FEATURES = {"res2": "layer1", "res3": "layer2", "res4": "layer3", "res5": "layer4"}
"""Detectron2's name of each map -> ours."""
PICTURE = (320, 416)
"""Height and width of an example: detectors get pictures of any size, padded to multiples of 32 pixels."""
TOPS = {
    "build_resnet_fpn_backbone": "pool",
    "build_retinanet_resnet_fpn_backbone": "res5",
    "build_fcos_resnet_fpn_backbone": "p5",
}
"""Builders of pyramids on a ResNet -> what the levels above P5 are made from."""


class BottomUp(NamedNetwork, Backbone):
    """A `NamedNetwork` that gives Detectron2 the maps of strides 4 to 32 by its names."""

    def __init__(self, spec: NamedSpec, features: list[str]) -> None:
        super().__init__(spec)
        self.features = features
        self.learn_for(FEATURES[name] for name in features)

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the maps (B, C, H / stride, W / stride) by name for images ``x`` (B, 3, H, W)."""
        maps = self.forward_stages(x)
        return {name: maps[FEATURES[name]] for name in self.features}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each map."""
        return {
            name: ShapeSpec(channels=self.stage_channels[stage], stride=self.stage_strides[stage])
            for name, stage in FEATURES.items()
            if name in self.features
        }


def named_options(cfg: CfgNode, spec: NamedSpec) -> None:
    """Set ``cfg`` so that it builds a pyramid on the backbone ``spec``.

    Raises:
        UserError: The protocol has no pyramid on a ResNet, the network has no maps for it, or takes images of one size only.
    """
    published = cfg.MODEL.NAMED if cfg.MODEL.BACKBONE.NAME == BUILDER else None
    if not published and cfg.MODEL.BACKBONE.NAME not in TOPS:
        others = (
            ("for plain networks", "detectron2_vitdet")
            if is_plain(spec)
            else ("with a feature pyramid", "detectron2_fpn")
        )
        raise UserError(
            f"{spec.title} cannot be the backbone of this protocol, in which the last stage of a ResNet is the head; choose one "
            f"of the protocols {others[0]} ({names_with(others[1])})"
        )
    needed(look(spec), tuple(FEATURES[name] for name in cfg.MODEL.FPN.IN_FEATURES), "a feature pyramid")
    check_size(spec, *PICTURE)
    if adamw.SECTION in cfg and cfg.TRAIN.LAYER_DECAY < 1:
        adamw.layers(expected(spec), cfg.TRAIN.LAYERS)
    if published:
        spec = spec.with_drop_path(published.OPTIONS.get("drop_path_rate"))
    top = published.TOP if published else TOPS[cfg.MODEL.BACKBONE.NAME]
    cfg.MODEL.NAMED = CfgNode({"NAME": spec.name, "OPTIONS": spec.options, "TOP": top})
    cfg.MODEL.BACKBONE.NAME = BUILDER


def named_spec(cfg: CfgNode) -> NamedSpec:
    """Return the backbone of such a config."""
    return NamedSpec(cfg.MODEL.NAMED.NAME, dict(cfg.MODEL.NAMED.OPTIONS))


@BACKBONE_REGISTRY.register()
def build_named_fpn_backbone(cfg: CfgNode, _input_shape: ShapeSpec) -> FPN:
    """Build Detectron2's FPN as the protocol has it, on the backbone that ``cfg.MODEL.NAMED`` names."""
    fpn, top = cfg.MODEL.FPN, cfg.MODEL.NAMED.TOP
    bottom_up = BottomUp(named_spec(cfg), list(fpn.IN_FEATURES))
    wide = {"p5": fpn.OUT_CHANNELS, "res5": bottom_up.stage_channels["layer4"]}
    above = LastLevelMaxPool() if top == "pool" else LastLevelP6P7(wide[top], fpn.OUT_CHANNELS, top)
    return FPN(bottom_up, fpn.IN_FEATURES, fpn.OUT_CHANNELS, fpn.NORM, above, fpn.FUSE_TYPE)
