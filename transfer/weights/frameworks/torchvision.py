"""torchvision's ResNet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer.weights.frameworks.record import Framework, FrameworkModel, reader, stages, tensors_in
from transfer.weights.naming import NAMINGS

if TYPE_CHECKING:
    from torch import nn

    from transfer.weights.backbone import Backbone

_NAMED = {(18, 1, 64), (34, 1, 64), (50, 1, 64), (101, 1, 64), (152, 1, 64)} | {
    (50, 32, 4), (101, 32, 8), (101, 64, 4), (50, 1, 128), (101, 1, 128)
}  # fmt: skip
"""Depth, groups and width per group of the networks for which torchvision has a function."""


def lacks(backbone: Backbone) -> str | None:
    """Return what a ResNet has that torchvision's class cannot have."""
    spec = backbone.resnet
    if spec.width != 1:
        return f"backbone of width {spec.width:g} (its stem always has 64 channels)"
    return (
        "stride in the first 1×1 convolution of a stage (STRIDE_IN_1X1 or style='caffe')"
        if spec.stride_in_1x1
        else None
    )


def _arguments(backbone: Backbone) -> tuple[Any, list[int], dict[str, int]]:
    from torchvision.models.resnet import BasicBlock, Bottleneck

    from pretrain.models.backbone_spec import BLOCKS

    spec = backbone.resnet
    grouped = {} if spec.basic else {"groups": spec.groups, "width_per_group": spec.width_per_group}
    return BasicBlock if spec.basic else Bottleneck, list(BLOCKS[spec.depth]), grouped


def _build(backbone: Backbone) -> FrameworkModel:
    from torch import nn
    from torchvision.models.resnet import ResNet

    block, blocks, grouped = _arguments(backbone)
    model = ResNet(block, blocks, **grouped)
    if backbone.resnet.stem == "3x3":
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return FrameworkModel(model, stages("maxpool"), model)


def _load(model: nn.Module, path: Path) -> None:
    # the classifier is the only part that our files do not hold
    classifier = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("fc.")}
    model.load_state_dict({**tensors_in(path), **classifier})


def _usage(backbone: Backbone, path: Path) -> str:
    from pretrain.models.backbone_spec import BLOCKS

    spec = backbone.resnet
    name = {1: f"resnet{spec.depth}", 2: f"wide_resnet{spec.depth}_2"}.get(spec.width_per_group // 64)
    if spec.groups > 1:
        name = f"resnext{spec.depth}_{spec.groups}x{spec.width_per_group}d"
    if (spec.depth, spec.groups, spec.width_per_group) not in _NAMED:
        block = "BasicBlock" if spec.basic else "Bottleneck"
        given = "" if spec.basic else f", groups={spec.groups}, width_per_group={spec.width_per_group}"
        name = f"resnet.ResNet(torchvision.models.resnet.{block}, {list(BLOCKS[spec.depth])}{given}"
    lines = [f"model = torchvision.models.{name}{')' if '(' in str(name) else '()'}"]
    if spec.stem == "3x3":
        lines.append("model.conv1, model.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()")
    lines.append(f"missing, unexpected = model.load_state_dict({reader(path)}, strict=False)")
    return "\n".join([*lines, 'assert missing == ["fc.weight", "fc.bias"] and not unexpected'])


RECORDS = (
    Framework(
        name="torchvision",
        title="torchvision ResNet",
        words=("torchvision",),
        variants=dict.fromkeys(("7x7", "3x3"), NAMINGS["torchvision"]),
        owns=re.compile(r"(?!fc\.)"),
        build=_build,
        load=_load,
        usage=_usage,
        reads=("torchvision",),
        families=("torchvision", "sequential"),
        pixels=False,
        lacks=lacks,
    ),
)
