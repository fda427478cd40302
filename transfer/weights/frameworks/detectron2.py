"""Detectron2's ResNet in the detectors C4 and FPN, and its ViT in ViTDet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.models.named_spec import NamedSpec
from transfer.weights import pyramid_head
from transfer.weights.frameworks.record import Framework, FrameworkModel, reader, stages, tensors_in
from transfer.weights.naming import NAMINGS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from transfer.weights.backbone import Backbone

_RES = ("res2", "res3", "res4", "res5")
_SUFFIXES = (".pkl", ".safetensors")


def _settings(backbone: Backbone) -> dict[str, Any]:
    """Return the network's part of a configuration: keys below ``MODEL.RESNETS``."""
    spec, base = backbone.resnet, int(64 * backbone.resnet.width)
    return {
        "DEPTH": spec.depth,
        "STRIDE_IN_1X1": spec.stride_in_1x1,
        "STEM_OUT_CHANNELS": base,
        "RES2_OUT_CHANNELS": base if spec.basic else 4 * base,
        "NUM_GROUPS": spec.groups,
        "WIDTH_PER_GROUP": spec.group_channels,
    }


def _strides(spec: NamedSpec) -> set[int]:
    """Return the strides of the maps of a network."""
    from pretrain.models.named_look import look

    return {stage.stride for stage in look(spec).stages.values()}


def _lacks(backbone: Backbone) -> str | None:
    if isinstance(backbone.spec, NamedSpec):
        plain = len(_strides(backbone.spec)) == 1
        return f"plain networks such as {backbone.spec.title}, whose maps have one stride" if plain else None
    spec = backbone.resnet
    narrow = spec.basic and spec.width != 1
    return f"{spec.title} (its ResNet-18 and ResNet-34 always have 64 channels in res2)" if narrow else None


def _lacks_c4(backbone: Backbone) -> str | None:
    if isinstance(backbone.spec, NamedSpec):
        return "backbones by name (its head res5 is the last stage of a ResNet)"
    spec = backbone.resnet
    return f"{spec.title} (its head res5 always has bottlenecks)" if spec.basic else _lacks(backbone)


def _model(backbone: Backbone, options: dict[str, Any]) -> Any:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    network = {f"RESNETS.{key}": value for key, value in _settings(backbone).items()}
    options = {"DEVICE": "cpu", "BACKBONE.FREEZE_AT": 0, "RESNETS.NORM": "BN", **network, **options}
    config.merge_from_list([word for key, value in options.items() for word in (f"MODEL.{key}", value)])
    return build_model(config)


def _c4(backbone: Backbone) -> FrameworkModel:
    model = _model(backbone, {})  # Detectron2's defaults are a Faster R-CNN C4
    places = stages("backbone.stem", "backbone.", _RES) | {"layer4": "roi_heads.res5"}
    return FrameworkModel(model, places, lambda images: model.roi_heads.res5(model.backbone(images)["res4"]))


def _named(backbone: Backbone) -> FrameworkModel:
    """Build a pyramid as Detectron2's protocols do, on the bottom-up network that the spec names."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone
    from torch import nn

    from transfer.detection.named_backbone import FEATURES, named_options

    config, spec = get_cfg(), backbone.pretrainable
    assert isinstance(spec, NamedSpec)
    config.MODEL.BACKBONE.NAME, config.MODEL.FPN.IN_FEATURES = "build_resnet_fpn_backbone", [*FEATURES]
    named_options(config, spec)
    pyramid: Any = build_backbone(config)
    bottom_up = pyramid.bottom_up
    return FrameworkModel(nn.ModuleDict({"backbone": pyramid}), {}, pyramid, maps=bottom_up.forward_stages)


def _fpn(backbone: Backbone) -> FrameworkModel:
    if isinstance(backbone.spec, NamedSpec):
        return _named(backbone)
    if not backbone.extras:
        return _two_stage(backbone, {})
    return _soco(backbone) if pyramid_head.two_stage(backbone.extras) else _dense(backbone)


def _two_stage(backbone: Backbone, options: dict[str, Any]) -> FrameworkModel:
    features, levels = list(_RES), ["p2", "p3", "p4", "p5"]
    detector = {
        "BACKBONE.NAME": "build_resnet_fpn_backbone",
        "RESNETS.OUT_FEATURES": features,
        "FPN.IN_FEATURES": features,
        "ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "RPN.IN_FEATURES": [*levels, "p6"],
        "ROI_HEADS.NAME": "StandardROIHeads",
        "ROI_HEADS.IN_FEATURES": levels,
        "ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "ROI_BOX_HEAD.NUM_FC": 1,
        "ROI_BOX_HEAD.POOLER_RESOLUTION": pyramid_head.CELLS,
    }
    model = _model(backbone, detector | options)
    return FrameworkModel(model, stages("backbone.bottom_up.stem", "backbone.bottom_up.", _RES), model.backbone)


def _soco(backbone: Backbone) -> FrameworkModel:
    """Build the model of `_two_stage` with norms in the pyramid and the box head 4conv1fc, as in `coco_fpn_1x`."""
    width = pyramid_head.width(backbone.extras)
    options = {"FPN.NORM": "BN", "ROI_BOX_HEAD.NORM": "BN", "FPN.OUT_CHANNELS": width, "ROI_BOX_HEAD.CONV_DIM": width}
    depths = {
        "ROI_BOX_HEAD.NUM_CONV": pyramid_head.BOX_DEPTH,
        "ROI_BOX_HEAD.FC_DIM": len(backbone.extras["box.fc1.bias"]),
    }
    built = _two_stage(backbone, options | depths)
    model: Any = built.model

    def maps(images: Tensor) -> dict[str, Tensor]:
        from transfer.weights.models import pyramid_head_model

        levels = {level: x for level, x in model.backbone(images).items() if level != "p6"}
        return levels | {pyramid_head.BOX: model.roi_heads.box_head(pyramid_head_model.regions(backbone.extras))}

    return built._replace(pyramid_head=maps)


def _dense(backbone: Backbone) -> FrameworkModel:
    """Build Detectron2's RetinaNet with P6 computed from P5.

    With group norm in its head it stands for FCOS, whose head class inherits from that of RetinaNet.
    """
    from detectron2.modeling.backbone.fpn import LastLevelP6P7

    from pretrain.models.fpn import LEVELS

    features, width = ["res3", "res4", "res5"], pyramid_head.width(backbone.extras)
    norm = "head.norm1.weight" in backbone.extras
    options = {
        "META_ARCHITECTURE": "RetinaNet",
        "BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
        "RESNETS.OUT_FEATURES": features,
        "FPN.IN_FEATURES": features,
        "FPN.OUT_CHANNELS": width,
        "RETINANET.NORM": "GN" if norm else "",
    }
    model = _model(backbone, options)
    model.backbone.top_block = LastLevelP6P7(width, width, "p5")
    end = max(pyramid_head.numbers(norm).values()) + 2  # with the ReLU

    def maps(images: Tensor) -> dict[str, Tensor]:
        levels = {level: x for level, x in model.backbone(images).items() if level in LEVELS}
        towers = pyramid_head.TOWERS if "head.conv1.weight" in backbone.extras else ()
        return levels | {f"{level} {t}": getattr(model.head, t)[:end](x) for level, x in levels.items() for t in towers}

    return FrameworkModel(model, stages("backbone.bottom_up.stem", "backbone.bottom_up.", _RES), model.backbone, maps)


def _vitdet(backbone: Backbone) -> FrameworkModel:
    """Build ViTDet's backbone with global attention in every block, as in pre-training. Only the detector uses windows."""
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT
    from torch import nn

    spec: Any = backbone.spec
    if isinstance(spec, NamedSpec):
        from transfer.detection.plain_network import PlainNetwork

        net: Any = PlainNetwork(**_plain_settings(spec))
    else:
        net = ViT(
            img_size=spec.image,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            **_vit_settings(spec),
        )
    pyramid = SimpleFeaturePyramid(net, "last_feat", 256, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool())
    model = nn.ModuleDict({"backbone": pyramid})
    if isinstance(spec, NamedSpec):
        return FrameworkModel(model, {}, pyramid, maps=net.forward_stages)
    return FrameworkModel(model, {stage: f"backbone.net.{module}" for stage, module in spec.stages.items()}, net)


def _plain_settings(spec: NamedSpec) -> dict[str, Any]:
    return {"name": spec.name, "options": json.dumps(spec.options)}


def _larger_patches(backbone: Backbone) -> Backbone:
    from transfer.weights.larger_patches import resized

    return resized(backbone)


def _lacks_vitdet(backbone: Backbone) -> str | None:
    spec: Any = backbone.spec
    stride, *others = _strides(spec) if isinstance(spec, NamedSpec) else {spec.patch}
    if others:
        return f"hierarchical networks such as {spec.title}"
    return None if stride.bit_count() == 1 else f"patches of {stride} pixels (its pyramid needs a power of two)"


def _vit_settings(spec: Any) -> dict[str, int]:
    sizes = {"patch_size": spec.patch, "embed_dim": spec.width, "depth": spec.depth, "num_heads": spec.heads}
    return sizes | {"pretrain_img_size": spec.image}


def _load(model: nn.Module, path: Path) -> None:
    """Load with Detectron2's own loader, or directly for safetensors, which that loader does not support."""
    from detectron2.checkpoint import DetectionCheckpointer

    if path.suffix == ".safetensors":
        model.load_state_dict(tensors_in(path), strict=False)  # missing tensors are found by the comparison
    else:
        DetectionCheckpointer(model).load(str(path))


def _usage(backbone: Backbone, path: Path) -> str:
    if path.suffix == ".safetensors":
        return f"model.load_state_dict({reader(path)}, strict=False)  # Detectron2's loader does not read safetensors"
    pixels, spec = backbone.pixels, backbone.spec
    if isinstance(spec, NamedSpec):  # cfg is that of a protocol with a feature pyramid
        lines = ["from pretrain.models.named_spec import NamedSpec"]
        lines += ["from transfer.detection.named_backbone import named_options"]
        lines += [f"cfg.MODEL.WEIGHTS, cfg.INPUT.FORMAT = {str(path)!r}, {pixels.order!r}"]
        lines += [f"cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = {[*pixels.mean]}, {[*pixels.std]}"]
        return "\n".join([*lines, f"named_options(cfg, NamedSpec({spec.name!r}, {spec.options!r}))"])
    lines = ["MODEL:", f"  WEIGHTS: {str(path)!r}", f"  PIXEL_MEAN: {[*pixels.mean]}", f"  PIXEL_STD: {[*pixels.std]}"]
    lines += ["  RESNETS:", *(f"    {key}: {value}" for key, value in _settings(backbone).items())]
    return "\n".join([*lines, "INPUT:", f"  FORMAT: {pixels.order!r}"])


def _vitdet_usage(backbone: Backbone, path: Path) -> str:
    start = f"train.init_checkpoint = {str(path)!r}"
    if isinstance(backbone.spec, NamedSpec):
        from transfer.detection.named_vitdet import parts, spread

        sizes = {"window_size": 14, "window_block_indexes": spread(parts(backbone.spec).blocks, 4)}
        given = ", ".join(f"{key}={value!r}" for key, value in (_plain_settings(backbone.spec) | sizes).items())
        lines = ["from detectron2.config import LazyCall", "from transfer.detection.plain_network import PlainNetwork"]
        lines += [f"model.backbone.net = LazyCall(PlainNetwork)({given})  # in a lazy configuration"]
        return "\n".join([*lines, "model.backbone.in_feature = 'last_feat'", start])
    given = ", ".join(f"{key}={value}" for key, value in _vit_settings(backbone.spec).items())
    return f"model.backbone.net.update({given})  # in a lazy configuration\n{start}"


def _record(
    detector: str, title: str, prefix: str, owns: str, build: Callable[[Backbone], FrameworkModel], **more: Any
) -> Framework:
    """Return the record of a ResNet detector. It has no counters: frozen norms and Detectron2's own files have none."""
    name = f"detectron2_{detector}"
    naming = NAMINGS["detectron2_c4"] if detector == "c4" else NAMINGS["detectron2"].under(prefix)
    given: dict[str, Any] = {"variants": {"7x7": naming}, "usage": _usage, "counters": False, "lacks": _lacks, **more}
    return Framework(
        name=name,
        title=title,
        words=("detectron2",),
        detector=detector,
        owns=re.compile(owns),
        build=build,
        load=_load,
        reads=(name,),
        suffixes=_SUFFIXES,
        **given,
    )


RECORDS = (
    _record(
        "fpn",
        "Detectron2 R-CNN FPN",
        "backbone.bottom_up.",
        r"backbone\.bottom_up\.",
        _fpn,
        pyramid_head=True,
        variants={
            "7x7": NAMINGS["detectron2"].under("backbone.bottom_up."),
            "named": NAMINGS["named"].under("backbone.bottom_up."),
        },
    ),
    _record("c4", "Detectron2 R-CNN C4", "backbone.", r"backbone\.|roi_heads\.res5\.\d", _c4, lacks=_lacks_c4),
    _record(
        "vitdet",
        "Detectron2 ViTDet",
        "backbone.net.",
        r"backbone\.net\.",
        _vitdet,
        variants={
            "ViT": NAMINGS["vit"].under("backbone.net."),
            "named": NAMINGS["named"].under("backbone.net."),
        },
        usage=_vitdet_usage,
        counters=True,
        fit=_larger_patches,
        lacks=_lacks_vitdet,
        by_design={
            "relative positions": re.compile(r"backbone\.net\.blocks\.\d+\.attn\.rel_pos_[hw]"),
            "propagation blocks": re.compile(r"backbone\.net\.blocks\.\d+\.residual\..*"),
            "simple feature pyramid": re.compile(r"backbone\.simfp_\d\..*"),
        },
    ),
)
