"""Find the places for pyramid and head of a checkpoint in a given detector."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pretrain.models.backbone_spec import TOWER_DEPTH
from transfer.weights.naming import COUNTER, is_counter
from transfer.weights.pyramid_head import BOX_HEAD, TOWERS, places

_PLACE = re.compile(r"backbone\.(?:fpn_\w+|top_block)\..*|head\.(?:cls|bbox)_subnet\.(\d+)\..*")
_NO_NORMS = "batch norms of the pyramid (the model has none)"


@dataclass(frozen=True)
class Fit:
    """How pyramid and head of a checkpoint fit into one model."""

    placed: dict[str, Tensor]
    """Tensors to copy, by their names in the model."""
    dropped: dict[str, int]
    """Tensors of the checkpoint that have no place in the model, by design: reason -> number."""
    initialised: dict[str, int]
    """Tensors of the model's pyramid and towers that are not in the checkpoint, by design: description -> number."""
    lacking: list[str]
    """Other tensors of the model's pyramid and towers that are not in the checkpoint, which is an error."""


def fit(model: nn.Module, extras: Mapping[str, Tensor]) -> Fit:
    """Find the place of each tensor in ``extras`` in a detector with a pyramid, for its type and the norms of its head."""
    if not extras:
        return Fit({}, {}, {}, [])
    own, dropped = set(model.state_dict()), Counter[str]()
    tower = getattr(getattr(model, "head", None), TOWERS[0], None)
    numbered = _live_numbers(tower) if tower is not None else {}
    box = {place for name in extras if name.startswith("box.") for place in places(name, {}) if not is_counter(place)}
    with_box = box == {name for name in own if name.startswith(BOX_HEAD) and not is_counter(name)}
    placed: dict[str, Tensor] = {}
    for name, tensor in extras.items():
        if reason := _unwanted(name, model, own, numbered, with_box):
            dropped[reason] += 1
        else:
            placed |= dict.fromkeys(places(name, numbered), tensor)
    with_head = any(name.startswith("head.") for name in extras)
    rest = [n for n in own - placed.keys() if (m := _PLACE.fullmatch(n)) and (m[1] is None or with_head)]
    rest += [n for n in own - placed.keys() if with_box and n.startswith(BOX_HEAD)]
    what = {name: _by_design(name, numbered, dropped, placed) for name in sorted(rest)}
    initialised = Counter(reason for reason in what.values() if reason)
    return Fit(placed, dict(dropped), dict(initialised), [name for name, reason in what.items() if not reason])


def _live_numbers(tower: Iterable[nn.Module]) -> dict[str, int]:
    """Return the numbers of `transfer.weights.pyramid_head.numbers` for all convolutions and group norms of a given tower."""
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
    """Return the reason why the model does not need ``name``, or None if it needs it."""
    part, module, leaf = name.split(".", 2)
    if is_counter(name):
        return COUNTER
    if part == "box":
        return None if with_box else "box head (the model has none or a different one)"
    if part == "head":
        if not numbered:
            return "head (the model has no such head)"
        return "group norms of the head (the model has none)" if "norm" in module and module not in numbered else None
    if module == "p6":
        if "backbone.top_block.p6.weight" not in own:
            return "P6 (the model has no convolution for it)"
        source = model.backbone.top_block.in_feature
        return None if source == "p5" else f"P6 computed from P5 (the model computes it from {source})"
    if module in ("lateral2", "output2") and f"backbone.fpn_{module}.weight" not in own:
        return "P2 (the model has none)"
    if leaf.startswith("norm."):
        return None if f"backbone.fpn_{module}.norm.running_mean" in own else _NO_NORMS
    return (
        "biases without effect (a norm follows)"
        if leaf == "bias" and f"backbone.fpn_{module}.norm.weight" in own
        else None
    )


def _by_design(
    place: str, numbered: Mapping[str, int], dropped: Collection[str], placed: Collection[str]
) -> str | None:
    """Return what ``place`` is if the checkpoint need not hold it, or None if it must hold it."""
    if is_counter(place) and place.replace(COUNTER, "running_mean") in placed:
        return COUNTER
    if place.startswith("head."):
        number = int(place.split(".")[2])
        if number >= numbered.get(f"conv{TOWER_DEPTH + 1}", 10**9):
            return "later layers of the head's towers"
        return None if number in (numbered.get(f"conv{i}") for i in (1, 2, 3)) else "norms of the head's towers"
    if _NO_NORMS in dropped and re.fullmatch(r"backbone\.fpn_(lateral|output)[2-5]\.bias", place):
        return "biases of the pyramid (the checkpoint has norms instead)"
    if (match := re.match(r"(backbone\.fpn_(?:lateral|output)2)\.", place)) and f"{match[1]}.weight" not in placed:
        return "P2 of the pyramid"
    if ".norm." in place:
        return "norms of the pyramid"
    if ".p7." in place:
        return "P7 of the pyramid"
    return "P6 of the pyramid" if ".p6." in place else None
