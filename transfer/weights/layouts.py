"""What is written for each framework: how a trunk's tensors are named there, and where in its model they are.

Also what each framework cannot express, so that it is refused with the reason and not lost: `express`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pixbench.errors import UserError
from transfer.weights import neck
from transfer.weights.containers.arrays import Array
from transfer.weights.format import Pixels
from transfer.weights.names import NAMES, Names, is_counter
from transfer.weights.trunk import Trunk


@dataclass(frozen=True)
class Layout:
    """What has to be known of a target to name a trunk's tensors for it and to find them in its model."""

    title: str
    kinds: Mapping[str, Names]
    """Kinds of trunk (`TrunkSpec.kind`) that the framework can build, and how their tensors are named there."""
    owns: re.Pattern[str]
    """Matches, at its start, each name in a live model that belongs to the trunk."""
    suffixes: tuple[str, ...] = (".pth", ".pt", ".safetensors")
    """File endings by which it is chosen how to write a file; safetensors hold the names alone."""
    counters: bool = True
    """Whether BatchNorm's ``num_batches_tracked`` is carried along."""
    neck: bool = False
    """Whether there is a place for a pyramid and a head, see `transfer.weights.neck`."""
    width: bool = True
    """Whether trunks of other widths than 1 can be built."""
    stride_in_1x1: bool = True
    """Whether a stage can have its stride in the first convolution."""
    pixels: bool = True
    """Whether order and statistics of pixels are a setting there; if not, they are ImageNet's in RGB."""
    by_design: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """What the model has beside the trunk within its backbone and no trunk ever holds: what -> names."""


def _detectron2(title: str, names: str, owns: str, neck: bool = False) -> Layout:
    """Counters are dropped: frozen and inference models have none, and Detectron2's own files never hold any."""
    suffixes = (".pkl", ".safetensors")
    return Layout(title, {"7x7": NAMES[names]}, re.compile(owns), suffixes, counters=False, neck=neck)


LAYOUTS: dict[str, Layout] = {
    "detectron2_c4": _detectron2("Detectron2 R-CNN C4", "detectron2_c4", r"backbone\.|roi_heads\.res5\.\d"),
    "detectron2_fpn": _detectron2("Detectron2 R-CNN FPN", "detectron2_fpn", r"backbone\.bottom_up\.", neck=True),
    # also MMDetection's, whose ResNet is the same code under the same names
    "mmseg": Layout(
        "MMSegmentation segmentor",
        {
            "7x7": NAMES["mmseg"],
            "deep": NAMES["mmseg"],
            "deep, averaging": NAMES["mmseg_pooled"],
        },
        re.compile(r"backbone\."),
    ),
    # the same but for deep stems, which are made of ConvModules there (`mmpretrain/models/backbones/resnet.py`)
    "mmpretrain": Layout("MMPretrain classifier", {"7x7": NAMES["mmseg"]}, re.compile(r"backbone\.")),
    "torchvision": Layout(
        "torchvision ResNet",
        {"7x7": NAMES["torchvision"]},
        re.compile(r"(?!fc\.)"),
        width=False,
        stride_in_1x1=False,
        pixels=False,
    ),
    "timm": Layout(
        "timm ResNet",
        {
            "7x7": NAMES["torchvision"],
            "deep": NAMES["timm_c"],
            "deep, averaging": NAMES["timm_d"],
        },
        re.compile(r"(?!fc\.)"),
        width=False,
        stride_in_1x1=False,
        pixels=False,
    ),
    "huggingface": Layout(
        "Hugging Face ResNet",
        {"7x7": NAMES["huggingface"]},
        re.compile(r"(?!classifier\.)"),
        suffixes=(".safetensors", ".pth", ".bin"),
        pixels=False,
    ),
    "detectron2_vitdet": Layout(
        "Detectron2 ViTDet",
        {"ViT": NAMES["detectron2_vitdet"]},
        re.compile(r"backbone\.net\."),
        suffixes=(".pkl", ".safetensors"),
        by_design={
            "relative positions": re.compile(r"backbone\.net\.blocks\.\d+\.attn\.rel_pos_[hw]"),
            "propagation blocks": re.compile(r"backbone\.net\.blocks\.\d+\.residual\..*"),
            "simple feature pyramid": re.compile(r"backbone\.simfp_\d\..*"),
        },
    ),
}


def find_layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise UserError(f"there is no weight layout {name!r}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def express(trunk: Trunk, layout: str) -> Trunk:
    """``trunk`` as ``layout`` can say it; `UserError` with the reason where that cannot be done exactly.

    Where pixels are no setting, a BGR trunk becomes an RGB one: its first convolution gets its input channels reversed.
    """
    rules, spec = find_layout(layout), trunk.spec
    names_of(trunk, layout)
    lacks = []
    if not rules.width and getattr(spec, "width", 1) != 1:
        lacks.append(f"trunk of width {spec.width:g}, its stem is fixed at 64 channels")
    if not rules.stride_in_1x1 and getattr(spec, "stride_in_1x1", False):
        lacks.append("stride in the first 1×1 convolution of a stage (STRIDE_IN_1X1, style caffe)")
    if not rules.pixels:
        if trunk.pixels.order == "BGR":
            first = next(name for name, tensor in trunk.state.items() if tensor.ndim == 4)
            mean, std = trunk.pixels.mean[::-1], trunk.pixels.std[::-1]
            state = trunk.state | {first: np.asarray(trunk.state[first])[:, ::-1].copy()}
            trunk = replace(trunk, state=state, pixels=Pixels("RGB", mean, std))
        if trunk.pixels != Pixels():
            lacks.append(f"other pixels than {Pixels()}; these weights take {trunk.pixels}")
    if lacks:
        able = [name for name, other in LAYOUTS.items() if spec.kind in other.kinds and other.width and other.pixels]
        advice = f"write this trunk for {' or '.join(able)}"
        raise UserError(f"{trunk.source}: a {rules.title} has no {'; no '.join(lacks)}; {advice}")
    return trunk


def names_of(trunk: Trunk, layout: str) -> Names:
    """How the tensors of such a trunk are named."""
    rules = find_layout(layout)
    if trunk.spec.kind not in rules.kinds:
        raise UserError(
            f"{trunk.source}: a {rules.title} has trunks of kind {' / '.join(rules.kinds)} and not {trunk.spec.kind}; "
            f"write this one for {' or '.join(n for n, other in LAYOUTS.items() if trunk.spec.kind in other.kinds)}"
        )
    return rules.kinds[trunk.spec.kind]


def to_target(trunk: Trunk, layout: str) -> dict[str, Array]:
    """The trunk's tensors under the framework's full names, in canonical order; then pyramid and head, if it has names."""
    rules, names = find_layout(layout), names_of(trunk, layout)
    named = {
        names.to_target(name): tensor for name, tensor in trunk.state.items() if rules.counters or not is_counter(name)
    }
    if None in named:
        raise ValueError(f"a trunk that was not checked: names without a place in {layout}")
    extras = {n: t for n, t in trunk.extras.items() if rules.neck and (rules.counters or not is_counter(n))}
    return {name: tensor for name, tensor in named.items() if name is not None} | neck.to_detectron2(extras)
