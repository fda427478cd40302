"""What is written for each framework: how a backbone's tensors are named there, and where in its model they are.

Also what each framework cannot express, so that it is refused with the reason and not lost: `express`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pixbench.errors import UserError
from transfer.weights import pyramid_head
from transfer.weights.backbone import Backbone
from transfer.weights.containers.arrays import Array
from transfer.weights.file_format import Pixels
from transfer.weights.naming import NAMINGS, Naming, is_counter


@dataclass(frozen=True)
class Framework:
    """What has to be known of a target to name a backbone's tensors for it and to find them in its model."""

    title: str
    variants: Mapping[str, Naming]
    """Kinds of backbone (`BackboneSpec.variant`) that the framework can build, and how their tensors are named there."""
    owns: re.Pattern[str]
    """Matches, at its start, each name in a live model that belongs to the backbone."""
    suffixes: tuple[str, ...] = (".pth", ".pt", ".safetensors")
    """File endings by which it is chosen how to write a file; safetensors hold the names alone."""
    counters: bool = True
    """Whether BatchNorm's ``num_batches_tracked`` is carried along."""
    pyramid_head: bool = False
    """Whether there is a place for a pyramid and a head, see `transfer.weights.pyramid_head`."""
    width: bool = True
    """Whether backbones of other widths than 1 can be built."""
    stride_in_1x1: bool = True
    """Whether a stage can have its stride in the first convolution."""
    pixels: bool = True
    """Whether order and statistics of pixels are a setting there; if not, they are ImageNet's in RGB."""
    by_design: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """What the model has beside the backbone within its backbone and no backbone ever holds: what -> names."""


def _detectron2(title: str, names: str, owns: str, pyramid_head: bool = False) -> Framework:
    """Counters are dropped: frozen and inference models have none, and Detectron2's own files never hold any."""
    suffixes = (".pkl", ".safetensors")
    return Framework(
        title, {"7x7": NAMINGS[names]}, re.compile(owns), suffixes, counters=False, pyramid_head=pyramid_head
    )


FRAMEWORKS: dict[str, Framework] = {
    "detectron2_c4": _detectron2("Detectron2 R-CNN C4", "detectron2_c4", r"backbone\.|roi_heads\.res5\.\d"),
    "detectron2_fpn": _detectron2(
        "Detectron2 R-CNN FPN", "detectron2_fpn", r"backbone\.bottom_up\.", pyramid_head=True
    ),
    # also MMDetection's, whose ResNet is the same code under the same names
    "mmseg": Framework(
        "MMSegmentation segmentor",
        {
            "7x7": NAMINGS["mmseg"],
            "deep": NAMINGS["mmseg"],
            "deep, averaging": NAMINGS["mmseg_pooled"],
        },
        re.compile(r"backbone\."),
    ),
    # the same but for deep stems, which are made of ConvModules there (`mmpretrain/models/backbones/resnet.py`)
    "mmpretrain": Framework("MMPretrain classifier", {"7x7": NAMINGS["mmseg"]}, re.compile(r"backbone\.")),
    "torchvision": Framework(
        "torchvision ResNet",
        {"7x7": NAMINGS["torchvision"]},
        re.compile(r"(?!fc\.)"),
        width=False,
        stride_in_1x1=False,
        pixels=False,
    ),
    "timm": Framework(
        "timm ResNet",
        {
            "7x7": NAMINGS["torchvision"],
            "deep": NAMINGS["timm_c"],
            "deep, averaging": NAMINGS["timm_d"],
        },
        re.compile(r"(?!fc\.)"),
        width=False,
        stride_in_1x1=False,
        pixels=False,
    ),
    "huggingface": Framework(
        "Hugging Face ResNet",
        {"7x7": NAMINGS["huggingface"]},
        re.compile(r"(?!classifier\.)"),
        suffixes=(".safetensors", ".pth", ".bin"),
        pixels=False,
    ),
    "detectron2_vitdet": Framework(
        "Detectron2 ViTDet",
        {"ViT": NAMINGS["detectron2_vitdet"]},
        re.compile(r"backbone\.net\."),
        suffixes=(".pkl", ".safetensors"),
        by_design={
            "relative positions": re.compile(r"backbone\.net\.blocks\.\d+\.attn\.rel_pos_[hw]"),
            "propagation blocks": re.compile(r"backbone\.net\.blocks\.\d+\.residual\..*"),
            "simple feature pyramid": re.compile(r"backbone\.simfp_\d\..*"),
        },
    ),
}


def find_framework(name: str) -> Framework:
    if name not in FRAMEWORKS:
        raise UserError(f"there is no weight framework {name!r}; known: {', '.join(FRAMEWORKS)}")
    return FRAMEWORKS[name]


def express(backbone: Backbone, framework: str) -> Backbone:
    """``backbone`` as ``framework`` can say it; `UserError` with the reason where that cannot be done exactly.

    Where pixels are no setting, a BGR backbone becomes an RGB one: its first convolution gets its input channels reversed.
    """
    rules, spec = find_framework(framework), backbone.spec
    names_of(backbone, framework)
    lacks = []
    if not rules.width and getattr(spec, "width", 1) != 1:
        lacks.append(f"backbone of width {spec.width:g}, its stem is fixed at 64 channels")
    if not rules.stride_in_1x1 and getattr(spec, "stride_in_1x1", False):
        lacks.append("stride in the first 1×1 convolution of a stage (STRIDE_IN_1X1, style caffe)")
    if not rules.pixels:
        if backbone.pixels.order == "BGR":
            first = next(name for name, tensor in backbone.state.items() if tensor.ndim == 4)
            mean, std = backbone.pixels.mean[::-1], backbone.pixels.std[::-1]
            state = backbone.state | {first: np.asarray(backbone.state[first])[:, ::-1].copy()}
            backbone = replace(backbone, state=state, pixels=Pixels("RGB", mean, std))
        if backbone.pixels != Pixels():
            lacks.append(f"other pixels than {Pixels()}; these weights take {backbone.pixels}")
    if lacks:
        able = [
            name
            for name, other in FRAMEWORKS.items()
            if spec.variant in other.variants and other.width and other.pixels
        ]
        advice = f"write this backbone for {' or '.join(able)}"
        raise UserError(f"{backbone.source}: a {rules.title} has no {'; no '.join(lacks)}; {advice}")
    return backbone


def names_of(backbone: Backbone, framework: str) -> Naming:
    """How the tensors of such a backbone are named."""
    rules = find_framework(framework)
    if backbone.spec.variant not in rules.variants:
        raise UserError(
            f"{backbone.source}: a {rules.title} has backbones of kind {' / '.join(rules.variants)} and not {backbone.spec.variant}; "
            f"write this one for {' or '.join(n for n, other in FRAMEWORKS.items() if backbone.spec.variant in other.variants)}"
        )
    return rules.variants[backbone.spec.variant]


def to_framework(backbone: Backbone, framework: str) -> dict[str, Array]:
    """The backbone's tensors under the framework's full names, in canonical order; then pyramid and head, if it has names."""
    rules, names = find_framework(framework), names_of(backbone, framework)
    named = {
        names.to_framework(name): tensor
        for name, tensor in backbone.state.items()
        if rules.counters or not is_counter(name)
    }
    if None in named:
        raise ValueError(f"a backbone that was not checked: names without a place in {framework}")
    extras = {n: t for n, t in backbone.extras.items() if rules.pyramid_head and (rules.counters or not is_counter(n))}
    return {name: tensor for name, tensor in named.items() if name is not None} | pyramid_head.to_detectron2(extras)
