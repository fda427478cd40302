"""timm's networks: its ResNet (`timm/models/resnet.py`), and all others by their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.models.named_spec import NamedSpec
from transfer.weights.frameworks import torchvision
from transfer.weights.frameworks.record import Framework, FrameworkModel, stages
from transfer.weights.naming import NAMINGS

if TYPE_CHECKING:
    from torch import nn

    from transfer.weights.backbone import Backbone


_NAMES = frozenset(
    """resnet18 resnet34 resnet50 resnet101 resnet152 resnet50c resnet18d resnet34d resnet50d resnet101d resnet152d
    resnext50_32x4d resnext101_32x4d resnext101_32x8d resnext101_64x4d resnext50d_32x4d
    wide_resnet50_2 wide_resnet101_2""".split()
)
"""Networks of our kinds that timm has by name; a test compares."""


def _settings(backbone: Backbone) -> dict[str, Any]:
    """Return the arguments of timm's class but the block; its functions (`resnet50d`, ...) give the same for some networks."""
    from pretrain.models.backbone_spec import BLOCKS

    spec = backbone.resnet
    given: dict[str, Any] = {"layers": BLOCKS[spec.depth]}
    if spec.stem == "deep":
        given |= {"stem_width": 32, "stem_type": "deep", "avg_down": spec.avg_down}
    if not spec.basic:
        given |= {"cardinality": spec.groups, "base_width": spec.width_per_group}
    return given


def _build(backbone: Backbone) -> FrameworkModel:
    if isinstance(backbone.spec, NamedSpec):
        return _by_name(backbone.spec)
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    block: Any = BasicBlock if backbone.resnet.basic else Bottleneck
    model = ResNet(block, **_settings(backbone), num_classes=0)
    return FrameworkModel(model, stages("maxpool"), model.forward_features)


def _by_name(spec: NamedSpec) -> FrameworkModel:
    from pretrain.models.named_network import NamedNetwork

    network = NamedNetwork(spec)
    model = network.net  # timm's own, as timm.create_model returns it
    return FrameworkModel(model, {}, model, maps=network.forward_stages)


def _lacks(backbone: Backbone) -> str | None:
    if isinstance(backbone.spec, NamedSpec):
        return None if backbone.spec.family == "timm" else f"network called {backbone.spec.name}"
    return torchvision.lacks(backbone)


def _named(architecture: str) -> FrameworkModel | None:
    """Return timm's ResNet of that name, newly initialised, or None if there is none."""
    try:
        import timm
        from timm.models.resnet import ResNet
    except ImportError:
        return None
    if not timm.is_model(architecture):
        return None
    model: Any = timm.create_model(architecture, num_classes=0)
    return FrameworkModel(model, stages("maxpool"), model.forward_features) if isinstance(model, ResNet) else None


def _load(model: nn.Module, path: Path) -> None:
    from timm.models import load_checkpoint

    load_checkpoint(model, str(path))


def _usage(backbone: Backbone, path: Path) -> str:
    if isinstance(backbone.spec, NamedSpec):
        given = "".join(f", {key}={value!r}" for key, value in backbone.spec.options.items())
        name = backbone.spec.function
        return f"model = timm.create_model({name!r}, num_classes=0{given}, checkpoint_path={str(path)!r})"
    spec = backbone.resnet
    letter = {"7x7": "", "deep": "c", "deep, averaging": "d"}[spec.variant]
    name = f"resnet{spec.depth}{letter}"
    if spec.groups > 1:
        name = f"resnext{spec.depth}{letter}_{spec.groups}x{spec.width_per_group}d"
    elif spec.width_per_group != 64:
        name = f"wide_resnet{spec.depth}{letter}_{spec.width_per_group / 64:g}"
    if name in _NAMES:
        return f"model = timm.create_model({name!r}, num_classes=0, checkpoint_path={str(path)!r})"
    block = f"block=timm.models.resnet.{'BasicBlock' if spec.basic else 'Bottleneck'}"
    given = ", ".join([block, *(f"{key}={value!r}" for key, value in _settings(backbone).items())])
    return (
        f"model = timm.models.resnet.ResNet({given}, num_classes=0)\ntimm.models.load_checkpoint(model, {str(path)!r})"
    )


RECORDS = (
    Framework(
        name="timm",
        title="timm network",
        words=("timm",),
        variants={
            "7x7": NAMINGS["torchvision"],
            "deep": NAMINGS["timm_c"],
            "deep, averaging": NAMINGS["timm_d"],
            "named": NAMINGS["own"],
        },
        owns=re.compile(r"(?!fc\.)"),
        build=_build,
        load=_load,
        usage=_usage,
        reads=("timm_c", "timm_d", "timm_named"),
        families=("timm_c", "timm_d"),
        named=_named,
        pixels=False,
        lacks=_lacks,
    ),
)
