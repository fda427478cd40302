"""The ResNet of OpenMMLab: MMSegmentation's, and MMDetection's and MMPretrain's, which have the same code and names.

(`mmseg/models/backbones/resnet.py`, `resnext.py`; MMPretrain's deep stem consists of ConvModules, which have other names.)
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.models.named_spec import NamedSpec
from transfer.weights.frameworks.record import Framework, FrameworkModel, reader, stages, tensors_in
from transfer.weights.naming import NAMINGS

if TYPE_CHECKING:
    from torch import nn

    from transfer.weights.backbone import Backbone

PREFIX = "backbone."


def _settings(backbone: Backbone) -> dict[str, Any]:
    """Return the network's part of ``model.backbone`` in a configuration."""
    if isinstance(backbone.spec, NamedSpec):
        return {"type": "NamedBackbone", **backbone.spec.as_dict()}
    spec, base = backbone.resnet, int(64 * backbone.resnet.width)
    settings: dict[str, Any] = {"type": "ResNet", "depth": spec.depth}
    if spec.groups > 1:
        settings |= {"type": "ResNeXt", "groups": spec.groups, "base_width": spec.group_channels}
    if base != 64:
        settings |= {"stem_channels": base, "base_channels": base}
    if spec.stem == "deep":
        settings |= {"deep_stem": True, "avg_down": spec.avg_down}
    return settings | {"style": "caffe" if spec.stride_in_1x1 else "pytorch"}


def _lacks(backbone: Backbone) -> str | None:
    if isinstance(backbone.spec, NamedSpec):
        return None
    spec = backbone.resnet
    wide = spec.groups == 1 and spec.width_per_group != 64
    return f"{spec.title} (its ResNeXt has no other width with one group)" if wide else None


def _build(backbone: Backbone) -> FrameworkModel:
    import mmseg.models  # noqa: F401  (fills the registry)
    from mmseg.registry import MODELS
    from torch import nn

    if isinstance(backbone.spec, NamedSpec):
        import transfer.segmentation.named_backbone  # noqa: F401  registers the class

        named = MODELS.build(_settings(backbone))
        return FrameworkModel(nn.ModuleDict({"backbone": named}), {}, named, maps=named.forward_stages)
    network = MODELS.build(_settings(backbone) | {"norm_cfg": {"type": "BN", "requires_grad": True}})
    return FrameworkModel(nn.ModuleDict({"backbone": network}), stages("backbone.maxpool", PREFIX), network)


def _load(model: nn.Module, path: Path) -> None:
    network: Any = model.get_submodule("backbone")
    if path.suffix == ".safetensors":  # which MMEngine's loader does not read
        network.load_state_dict({name.removeprefix(PREFIX): tensor for name, tensor in tensors_in(path).items()})
        return
    network.init_cfg = _init(path)
    network.init_weights()


def _init(path: Path) -> dict[str, str]:
    return {"type": "Pretrained", "checkpoint": str(path), "prefix": PREFIX}


def _usage(backbone: Backbone, path: Path, library: str) -> str:
    if path.suffix == ".safetensors":
        weights = f"{{name.removeprefix({PREFIX!r}): t for name, t in {reader(path)}.items()}}"
        return f"model.backbone.load_state_dict({weights})  # MMEngine's loader does not read safetensors"
    pixels = backbone.pixels
    to_rgb = "to_rgb" if library == "mmpretrain" else "bgr_to_rgb"
    inputs = {"mean": [*pixels.mean], "std": [*pixels.std], to_rgb: pixels.order == "RGB"}
    prepared = f"data_preprocessor=dict({_arguments(inputs)})"
    network = (
        f"    backbone=dict({_arguments(_settings(backbone))},\n        init_cfg=dict({_arguments(_init(path))})))"
    )
    lines = ["# without prefix='backbone.' nothing is loaded, and without a word"]
    if isinstance(backbone.spec, NamedSpec):  # its class is ours
        lines.insert(0, "custom_imports = dict(imports=['transfer.segmentation.named_backbone'])")
    if library == "mmpretrain":  # where it stands beside the model
        return "\n".join([*lines, prepared, "model = dict(", network])
    lines += ["model = dict(", f"    {prepared},"]
    if library == "mmseg":
        lines.append("    pretrained=None,  # the base configurations name other weights here")
    return "\n".join([*lines, network])


def _arguments(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


_MMSEG = Framework(
    name="mmseg",
    title="MMSegmentation segmentor",
    words=("mmseg",),
    variants={
        "7x7": NAMINGS["torchvision"].under(PREFIX),
        "deep": NAMINGS["torchvision"].under(PREFIX),
        "deep, averaging": NAMINGS["mmcv_averaging"].under(PREFIX),
        "named": NAMINGS["named"].under(PREFIX),
    },
    owns=re.compile(re.escape(PREFIX)),
    build=_build,
    load=_load,
    usage=partial(_usage, library="mmseg"),
    reads=("mmseg", "mmseg_pooled"),
    container="state_dict",
    lacks=_lacks,
    by_design={
        "offset of a deformable convolution": re.compile(r"backbone\.layer\d\.\d+\.conv2\.conv_offset\.(weight|bias)")
    },
)
# These two are not among the packages of this project; MMSegmentation's class has the same code and names.
_MMDET = replace(
    _MMSEG,
    name="mmdet",
    title="MMDetection detector",
    words=("mmdet",),
    usage=partial(_usage, library="mmdet"),
    reads=(),
    proved_in="MMSegmentation's ResNet, for MMDetection",
)
_MMPRETRAIN = replace(
    _MMSEG,
    name="mmpretrain",
    title="MMPretrain classifier",
    words=("mmpretrain",),
    variants={"7x7": NAMINGS["torchvision"].under(PREFIX)},
    usage=partial(_usage, library="mmpretrain"),
    reads=(),
    proved_in="MMSegmentation's ResNet, for MMPretrain",
)
RECORDS = (_MMSEG, _MMDET, _MMPRETRAIN)
