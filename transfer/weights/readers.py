"""From a file to a `Trunk`: the values behind the keys that `transfer.weights.format` sorted, checked and made uniform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UserError
from pretrain.models.spec import TrunkSpec
from transfer.weights import format, neck, neck_model, safe
from transfer.weights.format import Format
from transfer.weights.trunk import Counts, Problems, Trunk, check, expected, infer_spec, is_counter
from transfer.weights.vit import VitSpec

PRETRAIN_VERSION = 1


def __getattr__(name: str) -> Any:
    if name == "FORMATS":  # read when first asked for
        return format.formats()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class Reading:
    """A trunk and how it was come by."""

    trunk: Trunk
    format: str
    branch: str
    counts: Counts
    beside: list[str]
    """What the file holds beside the weights: "epoch", "optimizer", ..."""


def load(path: str | PathLike[str], branch: str | None = None, form: str | None = None) -> Trunk:
    """The trunk in any file of a known format, whole and finite; ``branch`` chooses where a file holds two."""
    return read(path, branch, form).trunk


def read(path: str | PathLike[str], branch: str | None = None, form: str | None = None) -> Reading:
    """As `load`, with the format that was recognised (or forced by ``form``) and the count of what became of each key."""
    content = safe.read(Path(path))
    name = format.recognise(content, path, form)
    kind = format.formats()[name]
    branch = branch or next(iter(kind.branches))
    if branch not in kind.branches:
        raise UserError(f"{path} is a {kind.title} and has no branch {branch!r}; it has {', '.join(kind.branches)}")
    held = format.table(content, kind)
    assert held is not None  # or it would not have been recognised
    state, extras, dropped, cast = _sort(held.weights, kind, branch, path)
    spec = replace(infer_spec(state, str(path)), **kind.trunk)
    counts = Counts(len(state) + len(extras), dropped, _fill_norms(state, extras, kind, spec), cast)
    pixels = kind.pixels
    if name == "pixbench" and "format" in content:
        if content.get("version") != PRETRAIN_VERSION:
            raise UserError(
                f"{path} is a pre-training checkpoint of version {content.get('version')}, this PixBench reads "
                f"{PRETRAIN_VERSION}; use the PixBench that wrote it"
            )
        spec = _declared(content.get("trunk"), spec, path)
    elif isinstance(about := content.get(format.ABOUT), Mapping):
        spec = _declared(about.get("trunk"), spec, path)
        pixels = _declared(about.get("pixels"), pixels, path)
    trunk = Trunk(spec, state, str(path), extras, pixels)
    check(trunk)
    return Reading(trunk, name, branch, counts, held.beside)


def _sort(
    weights: Mapping[str, Any], kind: Format, branch: str, path: object
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int], dict[str, int]]:
    """Trunk and extras of the branch under canonical names, how many keys were dropped why, and which types were cast."""
    sorting = format.sort(weights, kind, branch)
    if not sorting.trunk:
        prefix = kind.branches[branch]
        raise UserError(f"{path} holds no {branch} trunk: no key begins with {prefix!r}; choose another branch or file")
    problems, dropped = Problems(), Counter(sorting.dropped.values())
    problems.add("unknown", sorting.unknown)
    named = sorting.trunk | sorting.extras
    owners = {name: key for key, name in named.items()}
    problems.add("of a name that another has too", (key for key, name in named.items() if owners[name] != key))
    found = {name: weights[key] for key, name in sorting.trunk.items()}
    beside = {name: weights[key] for key, name in sorting.extras.items()}
    if beside and kind.layout == "detectron2_fpn":
        extras = neck.from_detectron2(beside)
        again = neck.to_detectron2(extras)
        second = [place for place in again if neck.TOWERS[1] in place and place in beside]
        problems.add("unknown", (place for place in beside if place not in again))
        problems.add("of a second tower unlike the first", (n for n in second if not _equal(beside[n], again[n])))
        dropped.update({"second tower of the head": len(second)} if second else {})
    else:
        extras = beside
        known = neck.TWO_STAGE if neck_model.two_stage(extras) else neck.NAMES
        problems.add("unknown", (name for name in extras if name not in known))
    both = found | extras
    problems.add("not a tensor", (name for name, value in both.items() if not isinstance(value, Tensor | np.ndarray)))
    problems.add("larger than what is stored of it", (name for name, value in both.items() if _is_stretched(value)))
    problems.raise_if_any(
        f"{path} holds keys that a {kind.title} should not have", "no key is skipped without being named as such"
    )
    cast: Counter[str] = Counter()
    plain = {name: _uniform(name, _plain_order(torch.as_tensor(value)), cast) for name, value in both.items()}
    return {n: plain[n] for n in found}, {n: plain[n] for n in extras}, dict(dropped), dict(cast)


def _equal(a: Any, b: Any) -> bool:
    if not all(isinstance(x, Tensor | np.ndarray) for x in (a, b)) or _is_stretched(a) or a.shape != b.shape:
        return False
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    return a.dtype == b.dtype and torch.equal(a, b)


def _plain_order(tensor: Tensor) -> Tensor:
    """Values in the order of the indices. For a 1×1 kernel of a channels-last model `contiguous` sees nothing to do, yet its
    strides would make PyTorch compute by another method."""
    return tensor.contiguous().view(-1).view(tensor.shape)


def _uniform(name: str, tensor: Tensor, cast: Counter[str]) -> Tensor:
    """In the type that trunks have, if no value changes by it; otherwise as it is, for `check` to refuse."""
    wanted = torch.int64 if is_counter(name) else torch.float32
    if tensor.dtype not in (_INTEGERS if is_counter(name) else _FLOATS):
        return tensor
    other = tensor.to(wanted)
    if not ((other.to(tensor.dtype) == tensor) | tensor.isnan()).all():
        return tensor
    cast[f"{tensor.dtype} to {wanted}".replace("torch.", "")] += 1
    return other


_FLOATS = (torch.float16, torch.bfloat16, torch.float64)
_INTEGERS = (torch.int32, torch.float32, torch.float64)


def _is_stretched(value: Any) -> bool:
    """A few stored numbers can be declared a tensor of any size; no honest checkpoint does so."""
    return isinstance(value, Tensor) and value.nbytes > value.untyped_storage().nbytes()


def _fill_norms(
    state: dict[str, Tensor], extras: dict[str, Tensor], kind: Format, spec: TrunkSpec | VitSpec
) -> dict[str, int]:
    """What norms lack by design: counters (0), and statistics that were folded into weight and bias (mean 0, variance 1).

    A folded norm is filled as Detectron2 does. A file with some of either is left for `check` to refuse, but for
    Detectron2's counters: its frozen norms have none beside trained ones that do.
    """
    wanted, filled = expected(spec), {}
    if not any(map(is_counter, state)) or kind.layout.startswith("detectron2"):
        missing = [name for name in expected(spec, extras) if is_counter(name) and name not in state | extras]
        for name in missing:
            (state if name in wanted else extras)[name] = torch.zeros((), dtype=torch.int64)
        filled["BatchNorm counters"] = len(missing)
    if not any(name.endswith((".running_mean", ".running_var")) for name in state):
        missing = [name for name in wanted if name.endswith((".running_mean", ".running_var"))]
        state.update({n: (torch.ones if n.endswith("var") else torch.zeros)(wanted[n].shape) for n in missing})
        filled["BatchNorm statistics, folded into weight and bias"] = len(missing)
    return {what: number for what, number in filled.items() if number}


def _declared(fields: Any, found: Any, path: object) -> Any:
    """What a file of ours says of its trunk or pixels, which must not contradict what the weights tell (``found``)."""
    try:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        declared = type(found)(**values)
        told = replace(found, **{name: values[name] for name in values.keys() & _UNTOLD})
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not say which trunk it holds ({error}); write it again") from error
    if declared != told:
        raise UserError(f"{path} says it holds {declared}, its weights are of {told}; one of the two is wrong")
    return declared


_UNTOLD = {"output_stride", "heads", "stride_in_1x1", "avg_down", "order", "mean", "std"}
"""Fields that no weight tells."""
