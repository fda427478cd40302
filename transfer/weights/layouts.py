"""How each framework names a ResNet trunk: one table a layout, used in both directions.

A canonical name (torchvision's) is ``module.leaf``; the module is in the stem (``conv1``) or in a block
(``layer3.5.bn2``). A table says what the stem's modules, the four stages and the modules within a block are called
elsewhere; block numbers and leaves (``weight``, ``running_mean``, ...) are the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from pretrain.errors import UserError
from transfer.weights import neck
from transfer.weights.trunk import Trunk, is_counter

Translator = Callable[[str], "str | None"]

_LEAVES = "weight|bias|running_mean|running_var|num_batches_tracked"
_STEM = {name: name for name in ("conv1", "bn1")}
_STAGES = {name: name for name in ("layer1", "layer2", "layer3", "layer4")}
_BLOCK = {name: name for name in "conv1 bn1 conv2 bn2 conv3 bn3 downsample.0 downsample.1".split()}


class Names:
    """A bijection between canonical names and a framework's; both ways give None for what is no name of a trunk."""

    def __init__(self, stem: dict[str, str], stages: dict[str, str], block: dict[str, str]) -> None:
        tables = (stem, stages, block)
        inverses = tuple({value: key for key, value in table.items()} for table in tables)
        if [len(t) for t in tables] != [len(t) for t in inverses]:
            raise ValueError("two modules of a layout have the same name")
        self.stages = stages
        self.to_target = _translator(*tables)
        self.to_canonical = _translator(*inverses)


def _translator(stem: dict[str, str], stages: dict[str, str], block: dict[str, str]) -> Translator:
    in_stem, in_stage, in_block = ("|".join(map(re.escape, table)) for table in (stem, stages, block))
    pattern = re.compile(rf"(?:({in_stem})|({in_stage})\.(\d+)\.({in_block}))\.({_LEAVES})")

    def translate(name: str) -> str | None:
        match = pattern.fullmatch(name)
        if match is None:
            return None
        module, stage, number, inner, leaf = match.groups()
        return f"{stem[module]}.{leaf}" if module else f"{stages[stage]}.{number}.{block[inner]}.{leaf}"

    return translate


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


def _prefixed(table: dict[str, str], prefix: str) -> dict[str, str]:
    return {key: prefix + value for key, value in table.items()}


def _detectron2(title: str, trunk: str, res5: str, owns: str, neck: bool = False) -> Layout:
    """Detectron2's ResNet (`detectron2/modeling/backbone/resnet.py`): a norm lives inside the convolution before it.

    Its counters are dropped: frozen and inference models have none, and Detectron2's own files never hold any.
    """
    block = {f"conv{i}": f"conv{i}" for i in (1, 2, 3)} | {f"bn{i}": f"conv{i}.norm" for i in (1, 2, 3)}
    return Layout(
        title,
        Names(
            stem={"conv1": f"{trunk}.stem.conv1", "bn1": f"{trunk}.stem.conv1.norm"},
            stages={f"layer{i}": f"{trunk}.res{i + 1}" for i in (1, 2, 3)} | {"layer4": res5},
            block=block | {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"},
        ),
        re.compile(owns),
        suffixes=(".pkl",),
        counters=False,
        neck=neck,
    )


LAYOUTS: dict[str, Layout] = {
    # res5 works on regions there: `Res5ROIHeads`. What protocols add behind it (`res5.norm`) is no part of the trunk.
    "detectron2_c4": _detectron2(
        "Detectron2 R-CNN C4", "backbone", "roi_heads.res5", r"backbone\.|roi_heads\.res5\.\d"
    ),
    "detectron2_fpn": _detectron2(
        "Detectron2 R-CNN FPN", "backbone.bottom_up", "backbone.bottom_up.res5", r"backbone\.bottom_up\.", neck=True
    ),
    "mmseg": Layout(
        "MMSegmentation segmentor",
        Names(_prefixed(_STEM, "backbone."), _prefixed(_STAGES, "backbone."), _BLOCK),
        re.compile(r"backbone\."),
        suffixes=(".pth", ".pt"),
        counters=True,
    ),
    "torchvision": Layout(
        "torchvision ResNet",
        Names(_STEM, _STAGES, _BLOCK),
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
