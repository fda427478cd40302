"""What some checkpoints hold beside the trunk: a feature pyramid and a detector's head, or the beginning of it.

Their names here are those of the modules in `transfer/weights/neck_model.py` behind ``fpn.`` and ``head.`` (dense) or ``box.``
(two-stage). In Detectron2 one tower of a dense head becomes two, for classes and for boxes, and its layers are numbered: with
a norm after each convolution (FCOS) they stand at 0, 3 and 6, without (RetinaNet) at 0, 2 and 4.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from pretrain.models.fpn import TOWER_DEPTH
from transfer.weights.names import LEAVES
from transfer.weights.neck_model import BOX_DEPTH
from transfer.weights.trunk import COUNTER, is_counter

TOWERS = ("cls_subnet", "bbox_subnet")
BOX = "box head"
_FPN = [f"fpn.{module}" for module in "lateral3 output3 lateral4 output4 lateral5 output5 p6".split()]
_HEAD = [f"head.{kind}{i}" for i in range(1, TOWER_DEPTH + 1) for kind in ("conv", "norm")]
NAMES = tuple(f"{module}.{leaf}" for module in _FPN + _HEAD for leaf in ("weight", "bias"))
"""All there can be of the dense kind; a checkpoint has no head, a head without norms, or one with them."""
_NORMED = [f"fpn.{kind}{i}" for i in (2, 3, 4, 5) for kind in ("lateral", "output")]
_NORMED += [f"box.conv{i + 1}" for i in range(BOX_DEPTH)]
_LEAVES = ["weight", *(f"norm.{leaf}" for leaf in LEAVES.split("|"))]
TWO_STAGE = (*(f"{m}.{leaf}" for m in _NORMED for leaf in _LEAVES), "box.fc1.weight", "box.fc1.bias")
"""All there is of the two-stage kind."""
_BOX_HEAD = "roi_heads.box_head."
_PLACE = re.compile(r"backbone\.(?:fpn_\w+|top_block)\..*|head\.(?:cls|bbox)_subnet\.(\d+)\..*")
_NO_NORMS = "batch norms of the pyramid, the model has none"
T = TypeVar("T")


@dataclass(frozen=True)
class Fit:
    """Where everything goes in one live model."""

    placed: dict[str, Tensor]
    dropped: dict[str, int]
    """Of the checkpoint, without a place by design: reason -> how many."""
    initialised: dict[str, int]
    """Of the model's pyramid and towers, not in the checkpoint by design: what -> how many."""
    lacking: list[str]
    """Of the model's pyramid and towers, not in the checkpoint for no known reason."""


def numbers(norm: bool) -> dict[str, int]:
    """Number of each of the head's layers in a tower of Detectron2: {"conv1": 0, ...}."""
    step = 3 if norm else 2
    convs = {f"conv{i + 1}": i * step for i in range(TOWER_DEPTH)}
    return convs | ({f"norm{i + 1}": i * step + 1 for i in range(TOWER_DEPTH)} if norm else {})


def places(name: str, numbered: Mapping[str, int]) -> list[str]:
    """Detectron2's names for ``name``; a layer that has no number gets a name that no model has."""
    part, module, leaf = name.split(".", 2)
    if part == "head":
        return [f"head.{tower}.{numbered.get(module, module)}.{leaf}" for tower in TOWERS]
    if part == "box":
        return [f"{_BOX_HEAD}{module}.{leaf}"]
    return [f"backbone.{'top_block.p6' if module == 'p6' else f'fpn_{module}'}.{leaf}"]


def to_detectron2(extras: Mapping[str, T]) -> dict[str, T]:
    """The names in a file: those of the detector whose head was trained."""
    numbered = numbers("head.norm1.weight" in extras)
    return {place: value for name, value in extras.items() for place in places(name, numbered)}


def from_detectron2(state: Mapping[str, T]) -> dict[str, T]:
    """The way back for whatever in ``state`` has such a name. The two towers should be equal; the first is taken."""
    numbered = numbers(f"head.{TOWERS[0]}.1.weight" in state)
    table = {places(name, numbered)[0]: name for name in NAMES + TWO_STAGE}
    return {table[place]: value for place, value in state.items() if place in table}


def fit(model: nn.Module, extras: Mapping[str, Tensor]) -> Fit:
    """Find the place of each of ``extras`` in a detector with a pyramid, as its class and its head's norms demand."""
    if not extras:
        return Fit({}, {}, {}, [])
    own, dropped = set(model.state_dict()), Counter[str]()
    tower = getattr(getattr(model, "head", None), TOWERS[0], None)
    numbered = _live_numbers(tower) if tower is not None else {}
    box = {place for name in extras if name.startswith("box.") for place in places(name, {}) if not is_counter(place)}
    with_box = box == {name for name in own if name.startswith(_BOX_HEAD) and not is_counter(name)}
    placed: dict[str, Tensor] = {}
    for name, tensor in extras.items():
        if reason := _unwanted(name, model, own, numbered, with_box):
            dropped[reason] += 1
        else:
            placed |= dict.fromkeys(places(name, numbered), tensor)
    with_head = any(name.startswith("head.") for name in extras)
    rest = [n for n in own - placed.keys() if (m := _PLACE.fullmatch(n)) and (m[1] is None or with_head)]
    rest += [n for n in own - placed.keys() if with_box and n.startswith(_BOX_HEAD)]
    what = {name: _by_design(name, numbered, dropped, placed) for name in sorted(rest)}
    initialised = Counter(reason for reason in what.values() if reason)
    return Fit(placed, dict(dropped), dict(initialised), [name for name, reason in what.items() if not reason])


def _live_numbers(tower: Iterable[nn.Module]) -> dict[str, int]:
    """As `numbers`, read off a live tower, for all its convolutions and those group norms that come right after one."""
    numbered: dict[str, int] = {}
    count = 0
    for number, layer in enumerate(tower):
        if isinstance(layer, nn.Conv2d):
            count += 1
            numbered[f"conv{count}"] = number
        elif isinstance(layer, nn.GroupNorm):
            numbered[f"norm{count}"] = number
    return numbered


def _unwanted(name: str, model: Any, own: set[str], numbered: Mapping[str, int], with_box: bool) -> str | None:
    """Why the model has no use for ``name``; None if it should have."""
    part, module, leaf = name.split(".", 2)
    if is_counter(name):
        return COUNTER
    if part == "box":
        return None if with_box else "of the box head, the model's is none or another"
    if part == "head":
        if not numbered:
            return "of the head, the model has no such one"
        return "group norms of the head, the model has none" if "norm" in module and module not in numbered else None
    if module == "p6":
        if "backbone.top_block.p6.weight" not in own:
            return "of P6, the model has no convolution for it"
        source = model.backbone.top_block.in_feature
        return None if source == "p5" else f"of P6 from P5, the model makes it from {source}"
    if module in ("lateral2", "output2") and f"backbone.fpn_{module}.weight" not in own:
        return "of P2, the model has none"
    if leaf.startswith("norm."):
        return None if f"backbone.fpn_{module}.norm.running_mean" in own else _NO_NORMS
    return "biases that a norm makes void" if leaf == "bias" and f"backbone.fpn_{module}.norm.weight" in own else None


def _by_design(
    place: str, numbered: Mapping[str, int], dropped: Collection[str], placed: Collection[str]
) -> str | None:
    """What a tensor of the model is that the checkpoint need not have; None if it should have it."""
    if is_counter(place) and place.replace(COUNTER, "running_mean") in placed:
        return COUNTER
    if place.startswith("head."):
        number = int(place.split(".")[2])
        if number >= numbered.get(f"conv{TOWER_DEPTH + 1}", 10**9):
            return "later layers of the head's towers"
        return None if number in (numbered.get(f"conv{i}") for i in (1, 2, 3)) else "norms of the head's towers"
    if _NO_NORMS in dropped and re.fullmatch(r"backbone\.fpn_(lateral|output)[2-5]\.bias", place):
        return "biases of the pyramid, the checkpoint has norms instead"
    if (match := re.match(r"(backbone\.fpn_(?:lateral|output)2)\.", place)) and f"{match[1]}.weight" not in placed:
        return "P2 of the pyramid"
    if ".norm." in place:
        return "norms of the pyramid"
    if ".p7." in place:
        return "P7 of the pyramid"
    return "P6 of the pyramid" if ".p6." in place else None
