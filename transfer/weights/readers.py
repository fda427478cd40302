"""From a file to a `Trunk`: which format it is, and where each of its keys goes.

A format is one entry of `FORMATS`: how to recognise it, which layout its names follow behind which prefix, and which
keys are left out on purpose. A key that is none of these is an error, so nothing is ever lost without a word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UserError
from pretrain.models.resnet import TrunkSpec
from transfer.weights import neck, safe
from transfer.weights.layouts import from_target
from transfer.weights.trunk import Counts, Problems, Trunk, check, expected, infer_spec, is_counter

PRETRAIN = "pixbench-pretrain"
PRETRAIN_VERSION = 1


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    title: str
    recognise: Callable[[Mapping[Any, Any]], bool]
    """Whether the content of a file is of this kind."""
    layout: str
    """How the names read once the branch's prefix is off."""
    container: str | None = None
    """Key of the file's dict under which the weights are; None if the file is that dict itself."""
    branches: dict[str, str] = field(default_factory=lambda: {"student": ""})
    """Trunks it may hold: name -> prefix. The first is the one read unless told otherwise."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Keys left out on purpose: reason -> pattern of the whole key."""


@dataclass(frozen=True)
class Reading:
    """A trunk and how it was come by."""

    trunk: Trunk
    format: str
    branch: str
    counts: Counts


def _has(container: str, prefix: str) -> Callable[[Mapping[Any, Any]], bool]:
    def recognise(content: Mapping[Any, Any]) -> bool:
        weights = content.get(container)
        return isinstance(weights, Mapping) and any(isinstance(key, str) and key.startswith(prefix) for key in weights)

    return recognise


FORMATS: dict[str, Format] = {
    "pixbench": Format(
        "PixBench pre-training checkpoint",
        recognise=lambda content: content.get("format") == PRETRAIN,
        layout="torchvision",
        container="model",
        branches={"student": "trunk.", "target": "target.trunk."},
        dropped={
            "projector": r"(target\.)?projector(_\w+)?\..*",
            "predictor": r"predictor\..*",
            "propagation": r"propagation\..*",
            "classifier": r"classifier\..*",
            "queue": r"queue(_\w+)?",
            "EMA counter": r"target\.step",
        },
    ),
    "detectron2_c4": Format(
        "Detectron2 weights, C4 layout",
        recognise=lambda content: "__author__" in content and _has("model", "roi_heads.res5.")(content),
        layout="detectron2_c4",
        container="model",
    ),
    "detectron2_fpn": Format(
        "Detectron2 weights, FPN layout",
        recognise=lambda content: "__author__" in content and _has("model", "backbone.bottom_up.")(content),
        layout="detectron2_fpn",
        container="model",
    ),
    "mmseg": Format(
        "MMSegmentation weights",
        recognise=_has("state_dict", "backbone."),
        layout="mmseg",
        container="state_dict",
    ),
    "torchvision": Format(
        "torchvision state dict",
        recognise=lambda content: "conv1.weight" in content and "layer1.0.conv1.weight" in content,
        layout="torchvision",
        dropped={"classifier": r"fc\.(weight|bias)"},
    ),
}


def load(path: str | PathLike[str], branch: str | None = None) -> Trunk:
    """The trunk in any file of a known format, whole and finite; ``branch`` chooses where a file holds two."""
    return read(path, branch).trunk


def read(path: str | PathLike[str], branch: str | None = None) -> Reading:
    """As `load`, with the format that was recognised and the count of what became of each key."""
    content = safe.read(Path(path))
    name = recognise(content, path)
    kind = FORMATS[name]
    weights = content if kind.container is None else content.get(kind.container)
    if not isinstance(weights, Mapping):
        raise UserError(f"{path} is a {kind.title} whose {kind.container!r} is no table of weights; write it again")
    branch = branch or next(iter(kind.branches))
    if branch not in kind.branches:
        raise UserError(f"{path} is a {kind.title} and has no branch {branch!r}; it has {', '.join(kind.branches)}")
    found, dropped = _sort(weights, kind, branch, path)
    extras = {key: tensor for key, tensor in found.items() if key in neck.NAMES}
    state = {key: tensor for key, tensor in found.items() if key not in extras}
    counts = Counts(len(found), dropped, _fill_counters(state, path))
    spec = (
        _declared_spec(content, infer_spec(state, str(path)), path)
        if name == "pixbench"
        else infer_spec(state, str(path))
    )
    trunk = Trunk(spec, state, str(path), extras)
    check(trunk)
    return Reading(trunk, name, branch, counts)


def recognise(content: Any, path: object) -> str:
    """Name of the format in `FORMATS`."""
    if isinstance(content, Mapping):
        for name, kind in FORMATS.items():
            if kind.recognise(content):
                return name
        keys = ", ".join(map(str, list(content)[:8])) or "none"
        what = f"its keys begin with {keys}"
    else:
        what = f"it holds a {type(content).__name__}"
    known = ", ".join(kind.title for kind in FORMATS.values())
    raise UserError(f"{path} is of no known format ({what}); known: {known}")


def _sort(
    weights: Mapping[Any, Any], kind: Format, branch: str, path: object
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors of the chosen branch under canonical names, and how many keys were dropped for which reason."""
    prefix = kind.branches[branch]
    patterns = {reason: re.compile(pattern) for reason, pattern in kind.dropped.items()}
    others = {f"{name} trunk": p for name, p in kind.branches.items() if name != branch}
    mine: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    dropped: Counter[str] = Counter()
    unknown: list[str] = []
    for key, value in weights.items():
        key = str(key)
        reason = next((r for r, pattern in patterns.items() if pattern.fullmatch(key)), None)
        reason = reason or next((r for r, other in others.items() if key.startswith(other)), None)
        if reason:
            dropped[reason] += 1
        elif (owner := _owner_of_extra(key, kind)) is not None:
            if owner == branch:
                extras[key.removeprefix(kind.branches[branch].removesuffix("trunk."))] = value
            else:
                dropped[f"{owner} pyramid and head"] += 1
        elif key.startswith(prefix):
            mine[key.removeprefix(prefix)] = value
        else:
            unknown.append(key)
    if not mine:
        raise UserError(f"{path} holds no {branch} trunk: no key begins with {prefix!r}; choose another branch or file")
    found, strange = from_target(mine, kind.layout)
    found |= extras
    problems = Problems()
    problems.add("unknown", unknown + [prefix + name for name in strange])
    problems.add("not a tensor", (name for name, value in found.items() if not isinstance(value, Tensor | np.ndarray)))
    problems.add("larger than what is stored of it", (name for name, value in found.items() if _is_stretched(value)))
    again = neck.to_detectron2({name: value for name, value in found.items() if name in neck.NAMES})
    second = [place for place in again if neck.TOWERS[1] in place and place in mine]
    problems.add("of a second tower unlike the first", (n for n in second if not _equal(mine[n], again[n])))
    if second:
        dropped["second tower of the head"] = len(second)
    problems.raise_if_any(
        f"{path} holds keys that a {kind.title} should not have", "no key is skipped without being named as such"
    )
    return {name: _plain_order(torch.as_tensor(value)) for name, value in found.items()}, dict(dropped)


def _owner_of_extra(key: str, kind: Format) -> str | None:
    """The branch whose pyramid or head ``key`` is of; they stand beside the trunks of our own checkpoints."""
    for name, prefix in kind.branches.items():
        beside = prefix.removesuffix("trunk.")
        if beside != prefix and key.startswith(beside) and key.removeprefix(beside) in neck.NAMES:
            return name
    return None


def _equal(a: Any, b: Any) -> bool:
    if not all(isinstance(x, Tensor | np.ndarray) for x in (a, b)) or _is_stretched(a) or a.shape != b.shape:
        return False
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return a.dtype == b.dtype and torch.equal(a, b)


def _plain_order(tensor: Tensor) -> Tensor:
    """Values in the order of the indices. For a 1×1 kernel of a channels-last model `contiguous` sees nothing to do, yet its
    strides would make PyTorch compute by another method."""
    return tensor.contiguous().view(-1).view(tensor.shape)


def _is_stretched(value: Any) -> bool:
    """A few stored numbers can be declared a tensor of any size; no honest checkpoint does so."""
    return isinstance(value, Tensor) and value.nbytes > value.untyped_storage().nbytes()


def _fill_counters(state: dict[str, Tensor], path: object) -> dict[str, int]:
    """Counters of 0 where the format holds none at all; a file with some of them is left for `check` to refuse."""
    if any(is_counter(name) for name in state):
        return {}
    missing = [name for name in expected(infer_spec(state, str(path))) if is_counter(name)]
    state.update({name: torch.zeros((), dtype=torch.int64) for name in missing})
    return {"BatchNorm counters": len(missing)}


def _declared_spec(content: Mapping[str, Any], found: TrunkSpec, path: object) -> TrunkSpec:
    """The spec written in one of our checkpoints, which must agree with the weights beside it."""
    if content.get("version") != PRETRAIN_VERSION:
        raise UserError(
            f"{path} is a pre-training checkpoint of version {content.get('version')}, this PixBench reads "
            f"{PRETRAIN_VERSION}; use the PixBench that wrote it"
        )
    try:
        declared = TrunkSpec(**content["trunk"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not say which trunk it holds ({error}); write it again") from error
    if (declared.depth, declared.width) != (found.depth, found.width):
        raise UserError(f"{path} says it holds {declared}, its weights are of {found}; one of the two is wrong")
    return declared
