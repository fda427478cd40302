"""Frameworks for which weights can be written: how each names the tensors of a backbone, and what it supports.

`express` refuses a backbone that a framework cannot represent exactly, and gives the reason.
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
    """Describe how one framework names the tensors of a backbone and where its models hold them."""

    title: str
    variants: Mapping[str, Naming]
    """Variants of backbones (`BackboneSpec.variant`) that the framework can build -> their naming."""
    owns: re.Pattern[str]
    """Pattern that matches the start of each name in a model that belongs to the backbone."""
    suffixes: tuple[str, ...] = (".pth", ".pt", ".safetensors")
    """Allowed file suffixes. The suffix decides how the file is written; safetensors files hold the tensors alone."""
    counters: bool = True
    """Whether BatchNorm's ``num_batches_tracked`` is written."""
    pyramid_head: bool = False
    """Whether a pyramid and a head can be written, see `transfer.weights.pyramid_head`."""
    width: bool = True
    """Whether a backbone can have another width than 1."""
    stride_in_1x1: bool = True
    """Whether a stage can have its stride in the first 1×1 convolution."""
    pixels: bool = True
    """Whether channel order, mean and std of pixels are settings. If not, they are RGB and those of ImageNet."""
    by_design: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """Tensors in the backbone of a model that no checkpoint contains, by design: description -> pattern of names."""


def _detectron2(title: str, names: str, owns: str, pyramid_head: bool = False) -> Framework:
    """Return a ResNet framework of Detectron2. It has no counters: frozen norms and Detectron2's own files have none."""
    suffixes = (".pkl", ".safetensors")
    return Framework(
        title, {"7x7": NAMINGS[names]}, re.compile(owns), suffixes, counters=False, pyramid_head=pyramid_head
    )


FRAMEWORKS: dict[str, Framework] = {
    "detectron2_c4": _detectron2("Detectron2 R-CNN C4", "detectron2_c4", r"backbone\.|roi_heads\.res5\.\d"),
    "detectron2_fpn": _detectron2(
        "Detectron2 R-CNN FPN", "detectron2_fpn", r"backbone\.bottom_up\.", pyramid_head=True
    ),
    # also for MMDetection, whose ResNet has the same code and names
    "mmseg": Framework(
        "MMSegmentation segmentor",
        {
            "7x7": NAMINGS["mmseg"],
            "deep": NAMINGS["mmseg"],
            "deep, averaging": NAMINGS["mmseg_averaging"],
        },
        re.compile(r"backbone\."),
    ),
    # the same except for deep stems, which consist of ConvModules (`mmpretrain/models/backbones/resnet.py`)
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
    """Return the framework called ``name``; raise `UserError` if there is none."""
    if name not in FRAMEWORKS:
        raise UserError(f"there is no weight framework {name!r}; known: {', '.join(FRAMEWORKS)}")
    return FRAMEWORKS[name]


def express(backbone: Backbone, framework: str) -> Backbone:
    """Return ``backbone`` in a form that ``framework`` can represent exactly.

    If pixels are not a setting of the framework, a BGR backbone becomes an RGB one: the input channels of its first
    convolution are reversed.

    Raises:
        UserError: If the framework cannot represent the backbone; the message says why.
    """
    rules = find_framework(framework)
    names_of(backbone, framework)
    if not rules.pixels and backbone.pixels.order == "BGR":
        first = next(name for name, tensor in backbone.state.items() if tensor.ndim == 4)
        mean, std = backbone.pixels.mean[::-1], backbone.pixels.std[::-1]
        state = backbone.state | {first: np.asarray(backbone.state[first])[:, ::-1].copy()}
        backbone = replace(backbone, state=state, pixels=Pixels("RGB", mean, std))
    if lacks := _lacks(rules, backbone):
        able = [name for name, other in _able(backbone) if not _lacks(other, backbone)]
        raise UserError(f"{backbone.source}: a {rules.title} supports no {'; no '.join(lacks)}; {_advice(able)}")
    return backbone


def _lacks(rules: Framework, backbone: Backbone) -> list[str]:
    """Return what the framework lacks for an RGB backbone of a variant that it has."""
    lacks = []
    if not rules.width and getattr(backbone.spec, "width", 1) != 1:
        lacks.append(f"backbone of width {backbone.spec.width:g} (its stem always has 64 channels)")
    if not rules.stride_in_1x1 and getattr(backbone.spec, "stride_in_1x1", False):
        lacks.append("stride in the first 1×1 convolution of a stage (STRIDE_IN_1X1 or style='caffe')")
    if not rules.pixels and backbone.pixels != Pixels():
        lacks.append(f"input pixels other than {Pixels()}, but these weights need {backbone.pixels}")
    return lacks


def _able(backbone: Backbone) -> list[tuple[str, Framework]]:
    """Return the frameworks that have the variant of this backbone, with their names."""
    return [(name, rules) for name, rules in FRAMEWORKS.items() if backbone.spec.variant in rules.variants]


def _advice(names: list[str]) -> str:
    """Return the advice to write for one of these frameworks, in the words of `pixbench convert`."""
    words = " or ".join(f"--to {name.replace('_', ' --detector ')}" for name in names)
    return f"convert it with {words}" if names else "no framework supports it"


def names_of(backbone: Backbone, framework: str) -> Naming:
    """Return the naming of ``framework`` for the variant of this backbone; raise `UserError` if it does not support that."""
    rules = find_framework(framework)
    if backbone.spec.variant not in rules.variants:
        raise UserError(
            f"{backbone.source}: a {rules.title} supports backbones of variant {' / '.join(rules.variants)}, "
            f"not {backbone.spec.variant}; {_advice([name for name, _ in _able(backbone)])}"
        )
    return rules.variants[backbone.spec.variant]


def to_framework(backbone: Backbone, framework: str) -> dict[str, Array]:
    """Return the tensors by their full names in the framework: the backbone in canonical order, then pyramid and head.

    Pyramid and head are left out if the framework cannot hold them.
    """
    rules, names = find_framework(framework), names_of(backbone, framework)
    named = {
        names.to_framework(name): tensor
        for name, tensor in backbone.state.items()
        if rules.counters or not is_counter(name)
    }
    if None in named:
        raise ValueError(f"some names of the backbone do not exist in {framework}; call `check` first")
    extras = {n: t for n, t in backbone.extras.items() if rules.pyramid_head and (rules.counters or not is_counter(n))}
    return {name: tensor for name, tensor in named.items() if name is not None} | pyramid_head.to_detectron2(extras)
