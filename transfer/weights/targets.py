"""The frameworks' own models, built for a trunk and filled from a file by the framework's own loader.

Frameworks are imported inside the functions: nothing here costs anything until a file is verified.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pretrain.errors import UserError
from pretrain.models.fpn import LEVELS
from pretrain.models.resnet import BLOCKS, TrunkSpec
from transfer.weights import neck
from transfer.weights.layouts import find_layout
from transfer.weights.trunk import Trunk


class Target(NamedTuple):
    model: nn.Module
    """Its tensors are named as the layout says."""
    stem: str
    """Module whose output is the stem's."""
    run: Callable[[Tensor], Any]
    """Sends images (B, 3, H, W) through the trunk, as the framework does."""
    neck: Callable[[Tensor], dict[str, Tensor]] | None = None
    """Maps of pyramid and head for images, named as `pretrain.models.fpn.LEVELS` and "p3 cls_subnet"; None without them."""


def build(layout: str, trunk: Trunk, path: Path) -> Target:
    """Model of ``layout`` for ``trunk`` with the weights of ``path``, in eval mode; the global random state is left alone."""
    with_neck = find_layout(layout).neck and trunk.extras
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            target = _dense_detector(trunk, path) if with_neck else TARGETS[layout](trunk.spec, path)
    except ImportError as error:
        raise UserError(
            f"verification as {layout} needs a package that is not installed ({error}); "
            "run scripts/install.sh, or leave verification out with --no-verify"
        ) from error
    except RuntimeError as error:  # how PyTorch says that names or shapes do not fit
        raise UserError(f"{path} does not load as {layout}: {str(error).splitlines()[0]}; convert it again") from error
    target.model.eval()
    return target


def _detectron2_c4(spec: TrunkSpec, path: Path) -> Target:
    model = _detectron2(spec, path, {})  # Detectron2's defaults are a Faster R-CNN C4
    return Target(model, "backbone.stem", lambda images: model.roi_heads.res5(model.backbone(images)["res4"]))


def _detectron2_fpn(spec: TrunkSpec, path: Path) -> Target:
    features, levels = ["res2", "res3", "res4", "res5"], ["p2", "p3", "p4", "p5"]
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
            "ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        },
    )
    return Target(model, "backbone.bottom_up.stem", model.backbone)


def _dense_detector(trunk: Trunk, path: Path) -> Target:
    """Detectron2's RetinaNet with P6 from P5; with group norm in its head that head is FCOS's, whose class inherits it."""
    features, width, norm = (
        ["res3", "res4", "res5"],
        len(trunk.extras["fpn.p6.bias"]),
        "head.norm1.weight" in trunk.extras,
    )

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
    model = _detectron2(trunk.spec, path, options, take_p5)
    end = max(neck.numbers(norm).values()) + 2  # with the ReLU

    def maps(images: Tensor) -> dict[str, Tensor]:
        levels = {level: x for level, x in model.backbone(images).items() if level in LEVELS}
        towers = neck.TOWERS if "head.conv1.weight" in trunk.extras else ()
        return levels | {f"{level} {t}": getattr(model.head, t)[:end](x) for level, x in levels.items() for t in towers}

    return Target(model, "backbone.bottom_up.stem", model.backbone, maps)


def _detectron2(
    spec: TrunkSpec, path: Path, options: dict[str, Any], adapt: Callable[[Any], None] = lambda _: None
) -> Any:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config, base = get_cfg(), int(64 * spec.width)
    options = {
        "DEVICE": "cpu",
        "BACKBONE.FREEZE_AT": 0,
        "RESNETS.DEPTH": spec.depth,
        "RESNETS.NORM": "BN",
        "RESNETS.STRIDE_IN_1X1": False,
        "RESNETS.STEM_OUT_CHANNELS": base,
        "RESNETS.WIDTH_PER_GROUP": base,
        "RESNETS.RES2_OUT_CHANNELS": 4 * base,
        **options,
    }
    config.merge_from_list([word for key, value in options.items() for word in (f"MODEL.{key}", value)])
    model = build_model(config)
    adapt(model)
    DetectionCheckpointer(model).load(str(path))
    return model


def _mmseg(spec: TrunkSpec, path: Path) -> Target:
    import mmseg.models  # noqa: F401  (fills the registry)
    from mmseg.registry import MODELS

    base = int(64 * spec.width)
    backbone = MODELS.build(
        {
            "type": "ResNet",
            "depth": spec.depth,
            "stem_channels": base,
            "base_channels": base,
            "style": "pytorch",
            "norm_cfg": {"type": "BN", "requires_grad": True},
            "init_cfg": {"type": "Pretrained", "checkpoint": str(path), "prefix": "backbone."},
        }
    )
    backbone.init_weights()
    return Target(nn.ModuleDict({"backbone": backbone}), "backbone.maxpool", backbone)


def _torchvision(spec: TrunkSpec, path: Path) -> Target:
    from torchvision.models.resnet import Bottleneck, ResNet

    model = ResNet(Bottleneck, list(BLOCKS[spec.depth]))
    classifier = {
        f"fc.{name}": tensor for name, tensor in model.fc.state_dict().items()
    }  # the one part we do not write
    model.load_state_dict({**torch.load(path, weights_only=True), **classifier})
    return Target(model, "maxpool", model)


TARGETS: dict[str, Callable[[TrunkSpec, Path], Target]] = {
    "detectron2_c4": _detectron2_c4,
    "detectron2_fpn": _detectron2_fpn,
    "mmseg": _mmseg,
    "torchvision": _torchvision,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the frameworks' long lists of heads that a trunk's file does not hold, logged or printed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
