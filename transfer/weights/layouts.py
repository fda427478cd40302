"""What is written for each framework: how a trunk's tensors are named there, and where in its model they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pretrain.errors import UserError
from transfer.weights import neck
from transfer.weights.names import NAMES, Names
from transfer.weights.trunk import Trunk, is_counter


@dataclass(frozen=True)
class Layout:
    """What has to be known of a target to name a trunk's tensors for it and to find them in its model."""

    title: str
    names: Names
    owns: re.Pattern[str]
    """Matches, at its start, each name in a live model that belongs to the trunk."""
    suffixes: tuple[str, ...]
    """File endings by which the framework chooses how to read a file."""
    counters: bool
    """Whether BatchNorm's ``num_batches_tracked`` is carried along."""
    neck: bool = False
    """Whether there is a place for a pyramid and a head, see `transfer.weights.neck`."""


def _detectron2(title: str, names: str, owns: str, neck: bool = False) -> Layout:
    """Counters are dropped: frozen and inference models have none, and Detectron2's own files never hold any."""
    return Layout(title, NAMES[names], re.compile(owns), suffixes=(".pkl",), counters=False, neck=neck)


LAYOUTS: dict[str, Layout] = {
    "detectron2_c4": _detectron2("Detectron2 R-CNN C4", "detectron2_c4", r"backbone\.|roi_heads\.res5\.\d"),
    "detectron2_fpn": _detectron2("Detectron2 R-CNN FPN", "detectron2_fpn", r"backbone\.bottom_up\.", neck=True),
    "mmseg": Layout(
        "MMSegmentation segmentor",
        NAMES["mmseg"],
        re.compile(r"backbone\."),
        suffixes=(".pth", ".pt"),
        counters=True,
    ),
    "torchvision": Layout(
        "torchvision ResNet",
        NAMES["torchvision"],
        re.compile(r"(?!fc\.)"),
        suffixes=(".pth", ".pt"),
        counters=True,
    ),
}


def find_layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise UserError(f"there is no weight layout {name!r}; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def to_target(trunk: Trunk, layout: str) -> dict[str, Tensor]:
    """The trunk's tensors under the framework's full names, in canonical order; then pyramid and head, if it has names."""
    rules = find_layout(layout)
    named = {
        rules.names.to_target(name): tensor
        for name, tensor in trunk.state.items()
        if rules.counters or not is_counter(name)
    }
    if None in named:
        raise ValueError(f"a trunk that was not checked: names without a place in {layout}")
    extras = neck.to_detectron2(trunk.extras) if rules.neck else {}
    return {name: tensor for name, tensor in named.items() if name is not None} | extras


def from_target(state: Mapping[str, Tensor], layout: str) -> tuple[dict[str, Tensor], list[str]]:
    """The way back: tensors under canonical names, and the names that are not of a trunk in this layout.

    A head's second tower is left out of both.
    """
    rules, found, unknown = find_layout(layout), {}, []
    names, extras = rules.names, neck.from_detectron2(state) if rules.neck else {}
    known = neck.to_detectron2(extras)
    for name, tensor in state.items():
        if name in known:
            continue
        canonical = names.to_canonical(name)
        if canonical is None:
            unknown.append(name)
        else:
            found[canonical] = tensor
    return found | extras, unknown
