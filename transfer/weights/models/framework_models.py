"""Build the model of a framework for a backbone and load a file into it with the framework's own loader.

Frameworks are imported inside the functions, so that importing this module is fast.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BLOCKS, STAGES, BackboneSpec
from pretrain.models.fpn import LEVELS
from transfer.weights import pyramid_head
from transfer.weights.backbone import Backbone
from transfer.weights.frameworks import find_framework
from transfer.weights.models import pyramid_head_model
from transfer.weights.vit_spec import VitSpec


class FrameworkModel(NamedTuple):
    """A model of a framework with loaded weights, and how to run it."""

    model: nn.Module
    """The model; its tensors have the framework's names."""
    stages: dict[str, str]
    """Outputs to compare: stage of our own backbone -> module of ``model`` with the same output."""
    run: Callable[[Tensor], Any]
    """Run the backbone on images (B, 3, H, W) as the framework does."""
    pyramid_head: Callable[[Tensor], dict[str, Tensor]] | None = None
    """Return the maps of pyramid and head for images, named "p3", "p3 cls_subnet" and `pyramid_head.BOX`. None if absent."""


def build(framework: str, backbone: Backbone, path: Path) -> FrameworkModel:
    """Return the model of ``framework`` for ``backbone`` in eval mode, with the weights in ``path``.

    The global random state does not change.
    """
    with_pyramid = find_framework(framework).pyramid_head and backbone.extras
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            build_detector = _two_stage_detector if pyramid_head.two_stage(backbone.extras) else _dense_detector
            loaded = build_detector(backbone, path) if with_pyramid else BUILDERS[framework](backbone.spec, path)
    except ImportError as error:
        raise UserError(
            f"verification as {framework} needs a package that is not installed ({error}); "
            "run scripts/install.sh, or skip verification with --no-verify"
        ) from error
    except RuntimeError as error:  # PyTorch raises it if names or shapes do not fit
        raise UserError(
            f"{path} does not load as {framework}: {str(error).splitlines()[0]}; convert it again"
        ) from error
    loaded.model.eval()
    return loaded


def _stages(stem: str, prefix: str = "", names: tuple[str, ...] = STAGES[1:]) -> dict[str, str]:
    return dict(zip(STAGES, [stem, *(prefix + name for name in names)], strict=True))


_RES = ("res2", "res3", "res4", "res5")


def _detectron2_c4(spec: BackboneSpec, path: Path) -> FrameworkModel:
    model = _detectron2(spec, path, {})  # Detectron2's defaults are a Faster R-CNN C4
    stages = _stages("backbone.stem", "backbone.", _RES) | {"layer4": "roi_heads.res5"}
    return FrameworkModel(model, stages, lambda images: model.roi_heads.res5(model.backbone(images)["res4"]))


def _detectron2_fpn(spec: BackboneSpec, path: Path, options: dict[str, Any] | None = None) -> FrameworkModel:
    features, levels = list(_RES), ["p2", "p3", "p4", "p5"]
    model = _detectron2(
        spec,
        path,
        {
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
            **(options or {}),
        },
    )
    return FrameworkModel(model, _stages("backbone.bottom_up.stem", "backbone.bottom_up.", _RES), model.backbone)


def _two_stage_detector(backbone: Backbone, path: Path) -> FrameworkModel:
    """Build the model of `_detectron2_fpn` with norms in the pyramid and the box head 4conv1fc, as in `coco_fpn_1x`."""
    width = pyramid_head.width(backbone.extras)
    options = {"FPN.NORM": "BN", "ROI_BOX_HEAD.NORM": "BN", "FPN.OUT_CHANNELS": width, "ROI_BOX_HEAD.CONV_DIM": width}
    depths = {
        "ROI_BOX_HEAD.NUM_CONV": pyramid_head.BOX_DEPTH,
        "ROI_BOX_HEAD.FC_DIM": len(backbone.extras["box.fc1.bias"]),
    }
    loaded = _detectron2_fpn(backbone.resnet, path, options | depths)
    model: Any = loaded.model

    def maps(images: Tensor) -> dict[str, Tensor]:
        levels = {level: x for level, x in model.backbone(images).items() if level != "p6"}
        return levels | {pyramid_head.BOX: model.roi_heads.box_head(pyramid_head_model.regions(backbone.extras))}

    return loaded._replace(pyramid_head=maps)


def _dense_detector(backbone: Backbone, path: Path) -> FrameworkModel:
    """Build Detectron2's RetinaNet with P6 computed from P5.

    With group norm in its head it stands for FCOS, whose head class inherits from that of RetinaNet.
    """
    features, width = ["res3", "res4", "res5"], pyramid_head.width(backbone.extras)
    norm = "head.norm1.weight" in backbone.extras

    def take_p5(model: Any) -> None:
        from detectron2.modeling.backbone.fpn import LastLevelP6P7

        model.backbone.top_block = LastLevelP6P7(width, width, "p5")

    options = {
        "META_ARCHITECTURE": "RetinaNet",
        "BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
        "RESNETS.OUT_FEATURES": features,
        "FPN.IN_FEATURES": features,
        "FPN.OUT_CHANNELS": width,
        "RETINANET.NORM": "GN" if norm else "",
    }
    model = _detectron2(backbone.resnet, path, options, take_p5)
    end = max(pyramid_head.numbers(norm).values()) + 2  # with the ReLU

    def maps(images: Tensor) -> dict[str, Tensor]:
        levels = {level: x for level, x in model.backbone(images).items() if level in LEVELS}
        towers = pyramid_head.TOWERS if "head.conv1.weight" in backbone.extras else ()
        return levels | {f"{level} {t}": getattr(model.head, t)[:end](x) for level, x in levels.items() for t in towers}

    return FrameworkModel(model, _stages("backbone.bottom_up.stem", "backbone.bottom_up.", _RES), model.backbone, maps)


def _detectron2(
    spec: BackboneSpec, path: Path, options: dict[str, Any], adapt: Callable[[Any], None] = lambda _: None
) -> Any:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config, base = get_cfg(), int(64 * spec.width)
    options = {
        "DEVICE": "cpu",
        "BACKBONE.FREEZE_AT": 0,
        "RESNETS.DEPTH": spec.depth,
        "RESNETS.NORM": "BN",
        "RESNETS.STRIDE_IN_1X1": spec.stride_in_1x1,
        "RESNETS.STEM_OUT_CHANNELS": base,
        "RESNETS.WIDTH_PER_GROUP": base,
        "RESNETS.RES2_OUT_CHANNELS": 4 * base,
        **options,
    }
    config.merge_from_list([word for key, value in options.items() for word in (f"MODEL.{key}", value)])
    model = build_model(config)
    adapt(model)
    return _detectron2_loaded(model, path)


def _detectron2_loaded(model: nn.Module, path: Path) -> Any:
    """Load the weights with Detectron2's own loader, or directly for safetensors, which that loader does not support."""
    from detectron2.checkpoint import DetectionCheckpointer

    if path.suffix == ".safetensors":
        model.load_state_dict(_tensors(path), strict=False)  # missing tensors are found by the comparison
    else:
        DetectionCheckpointer(model).load(str(path))
    return model


def _vitdet(spec: VitSpec, path: Path) -> FrameworkModel:
    """Build ViTDet's backbone with global attention in every block, as in pre-training. Only the detector uses windows."""
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool
    from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, ViT

    net = ViT(
        img_size=spec.image,
        patch_size=spec.patch,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        pretrain_img_size=spec.image,
    )
    pyramid = SimpleFeaturePyramid(
        net, "last_feat", 256, (4.0, 2.0, 1.0, 0.5), LastLevelMaxPool(), square_pad=spec.image
    )
    model = _detectron2_loaded(nn.ModuleDict({"backbone": pyramid}), path)
    return FrameworkModel(model, {stage: f"backbone.net.{module}" for stage, module in spec.stages.items()}, net)


def _mmseg(spec: BackboneSpec, path: Path) -> FrameworkModel:
    import mmseg.models  # noqa: F401  (fills the registry)
    from mmseg.registry import MODELS

    base, by_loader = int(64 * spec.width), path.suffix != ".safetensors"
    backbone = MODELS.build(
        {
            "type": "ResNet",
            "depth": spec.depth,
            "stem_channels": base,
            "base_channels": base,
            "deep_stem": spec.stem == "deep",
            "avg_down": spec.avg_down,
            "style": "caffe" if spec.stride_in_1x1 else "pytorch",
            "norm_cfg": {"type": "BN", "requires_grad": True},
            "init_cfg": {"type": "Pretrained", "checkpoint": str(path), "prefix": "backbone."} if by_loader else None,
        }
    )
    if by_loader:
        backbone.init_weights()
    else:
        backbone.load_state_dict({name.removeprefix("backbone."): t for name, t in _tensors(path).items()})
    return FrameworkModel(nn.ModuleDict({"backbone": backbone}), _stages("backbone.maxpool", "backbone."), backbone)


def _torchvision(spec: BackboneSpec, path: Path) -> FrameworkModel:
    from torchvision.models.resnet import Bottleneck, ResNet

    model = ResNet(Bottleneck, list(BLOCKS[spec.depth]))
    classifier = {
        f"fc.{name}": tensor for name, tensor in model.fc.state_dict().items()
    }  # the only part that our files do not hold
    model.load_state_dict({**_tensors(path), **classifier})
    return FrameworkModel(model, _stages("maxpool"), model)


def _timm(spec: BackboneSpec, path: Path) -> FrameworkModel:
    import timm

    variant = {"7x7": "", "deep": "c", "deep, averaging": "d"}[spec.variant]
    model: Any = timm.create_model(f"resnet{spec.depth}{variant}", num_classes=0, checkpoint_path=str(path))
    return FrameworkModel(model, _stages("maxpool"), model.forward_features)


def _huggingface(spec: BackboneSpec, path: Path) -> FrameworkModel:
    from transformers import ResNetConfig, ResNetModel

    base = int(64 * spec.width)
    config = ResNetConfig(
        embedding_size=base,
        hidden_sizes=[4 * base * 2**i for i in range(4)],
        depths=list(BLOCKS[spec.depth]),
        downsample_in_bottleneck=spec.stride_in_1x1,
    )
    model = ResNetModel(config)
    model.load_state_dict(_tensors(path))
    return FrameworkModel(model, _stages("embedder", "encoder.stages.", ("0", "1", "2", "3")), model)


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, weights_only=True)


BUILDERS: dict[str, Callable[[Any, Path], FrameworkModel]] = {
    "detectron2_c4": _detectron2_c4,
    "detectron2_fpn": _detectron2_fpn,
    "detectron2_vitdet": _vitdet,
    "mmseg": _mmseg,
    "mmpretrain": _mmseg,  # MMSegmentation's class, which is installed, has the same names for the stems that we write
    "torchvision": _torchvision,
    "timm": _timm,
    "huggingface": _huggingface,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the frameworks' long messages about missing heads, whether logged or printed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
