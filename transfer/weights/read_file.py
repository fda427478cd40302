"""From a file to a `Backbone`: the values behind the keys that `transfer.weights.file_format` sorted, checked and made uniform."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_VERSION
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import pyramid_head, recognition
from transfer.weights.backbone import Backbone, Counts, Problems, check, infer_spec
from transfer.weights.containers import ABOUT, safe
from transfer.weights.containers.arrays import cast, equal, in_order, is_brief, is_stretched, type_name
from transfer.weights.expected_shapes import expected
from transfer.weights.file_format import Format, formats
from transfer.weights.naming import is_counter
from transfer.weights.vit_spec import VitSpec

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reading:
    """A backbone and how it was come by."""

    backbone: Backbone
    format: str
    branch: str
    counts: Counts
    beside: list[str]
    """What the file holds beside the weights: "epoch", "optimizer", ..."""


def load(path: str | PathLike[str], branch: str | None = None, format_name: str | None = None) -> Backbone:
    """The backbone in any file of a known format, whole and finite; ``branch`` chooses where a file holds two."""
    return read(path, branch, format_name).backbone


def read(path: str | PathLike[str], branch: str | None = None, format_name: str | None = None) -> Reading:
    """As `load`, with the format that was recognised (or forced by ``format_name``) and the count of what became of each key."""
    found = read_arrays(path, branch, format_name)
    return replace(found, backbone=found.backbone.tensors())


def read_arrays(path: str | PathLike[str], branch: str | None = None, format_name: str | None = None) -> Reading:
    """As `read`, in numpy's arrays and without importing PyTorch."""
    content = safe.read(Path(path))
    name = recognition.recognise(content, path, format_name)
    fmt = recognition.as_declared(formats()[name], content)
    branch = branch or next(iter(fmt.branches))
    if branch not in fmt.branches:
        raise UserError(f"{path} is a {fmt.title} and has no branch {branch!r}; it has {', '.join(fmt.branches)}")
    held = recognition.table(content, fmt)
    assert held is not None  # or it would not have been recognised
    state, extras, dropped, types = _sort(held.weights, fmt, branch, path)
    spec = replace(infer_spec(state, str(path)), **fmt.backbone)
    counts = Counts(len(state) + len(extras), dropped, _fill_norms(state, extras, fmt, spec), types)
    pixels = fmt.pixels
    if name == "pixbench" and "format" in content:
        version = content.get("version")
        if type(version) is not int or not 1 <= version <= CHECKPOINT_VERSION:
            raise UserError(
                f"{path} is a pre-training checkpoint of {f'version {version}' if is_brief(version) else 'no version'}, "
                f"this PixBench reads 1 to {CHECKPOINT_VERSION}; use the PixBench that wrote it"
            )
        spec = declared(spec_in(content), spec, path)
    elif isinstance(about := content.get(ABOUT), Mapping):
        spec = declared(spec_in(about), spec, path)
        pixels = declared(about.get("pixels"), pixels, path)
    backbone = Backbone(spec, state, str(path), extras, pixels)
    check(backbone)
    return Reading(backbone, name, branch, counts, held.beside)


def _sort(
    weights: Mapping[str, Any], fmt: Format, branch: str, path: str | PathLike[str]
) -> tuple[Arrays, Arrays, dict[str, int], dict[str, int]]:
    """Backbone and extras of the branch under canonical names, how many keys were dropped why, and which types were cast."""
    sorting = recognition.sort(weights, fmt, branch)
    if not sorting.backbone:
        prefix = fmt.branches[branch]
        raise UserError(
            f"{path} holds no {branch} backbone: no key begins with {prefix!r}; choose another branch or file"
        )
    problems, dropped = Problems(), Counter(sorting.dropped.values())
    problems.add("unknown", sorting.unknown)
    named = sorting.backbone | sorting.extras
    owners = {name: key for key, name in named.items()}
    problems.add("of a name that another has too", (key for key, name in named.items() if owners[name] != key))
    found = {name: weights[key] for key, name in sorting.backbone.items()}
    beside = {name: weights[key] for key, name in sorting.extras.items()}
    if beside and fmt.naming == "detectron2_fpn":
        extras = pyramid_head.from_detectron2(beside)
        again = pyramid_head.to_detectron2(extras)
        second = [place for place in again if pyramid_head.TOWERS[1] in place and place in beside]
        problems.add("unknown", (place for place in beside if place not in again))
        problems.add("of a second tower unlike the first", (n for n in second if not _equal(beside[n], again[n])))
        dropped.update({"second tower of the head": len(second)} if second else {})
    else:
        extras = beside
        known = pyramid_head.TWO_STAGE if pyramid_head.two_stage(extras) else pyramid_head.NAMES
        problems.add("unknown", (name for name in extras if name not in known))
    both = found | extras
    problems.add("not a tensor", (name for name, value in both.items() if not isinstance(value, np.ndarray)))
    problems.add("larger than what is stored of it", (name for name, value in both.items() if _is_stretched(value)))
    problems.raise_if_any(
        f"{path} holds keys that a {fmt.title} should not have",
        "no key is skipped without being named as such; `pixbench weights inspect` names all",
        most=12,
    )
    if sum(array.nbytes for array in both.values()) > 2 * Path(path).stat().st_size:
        raise UserError(f"{path} holds the same numbers under many names, larger together than the file; write it anew")
    types: Counter[str] = Counter()
    uniform = {name: _uniform(name, in_order(array), types) for name, array in both.items()}
    return {n: uniform[n] for n in found}, {n: uniform[n] for n in extras}, dict(dropped), dict(types)


def _is_stretched(value: Any) -> bool:
    return isinstance(value, np.ndarray) and is_stretched(value)


def _equal(a: Any, b: Any) -> bool:
    return all(isinstance(x, np.ndarray) for x in (a, b)) and not is_stretched(a) and equal(a, b)


def _uniform(name: str, array: np.ndarray, types: Counter[str]) -> np.ndarray:
    """In the type that backbones have, if no value changes by it; otherwise as it is, for `check` to refuse."""
    wanted, others = ("int64", _INTEGERS) if is_counter(name) else ("float32", _FLOATS)
    before = type_name(array)
    if before not in others or (other := cast(array, wanted)) is None:
        return array
    types[f"{before} to {wanted}"] += 1
    return other


_FLOATS = ("float16", "bfloat16", "float64")
_INTEGERS = ("int32", "float32", "float64")


def _fill_norms(state: Arrays, extras: Arrays, fmt: Format, spec: BackboneSpec | VitSpec) -> dict[str, int]:
    """What norms lack by design: counters (0), and statistics that were folded into weight and bias (mean 0, variance 1).

    A folded norm is filled as Detectron2 does. A file with some of either is left for `check` to refuse, but for
    Detectron2's counters: its frozen norms have none beside trained ones that do.
    """
    wanted, filled = expected(spec), {}
    if not any(map(is_counter, state)) or fmt.naming.startswith("detectron2"):
        missing = [name for name in expected(spec, extras) if is_counter(name) and name not in state | extras]
        for name in missing:
            (state if name in wanted else extras)[name] = np.zeros((), np.int64)
        filled["BatchNorm counters"] = len(missing)
    if not any(name.endswith((".running_mean", ".running_var")) for name in state):
        missing = [name for name in wanted if name.endswith((".running_mean", ".running_var"))]
        fill = {n: np.full(wanted[n].shape, 1.0 if n.endswith("var") else 0.0, np.float32) for n in missing}
        state.update(fill)
        filled["BatchNorm statistics, folded into weight and bias"] = len(missing)
    return {what: number for what, number in filled.items() if number}


def spec_in(content: Mapping[str, Any]) -> Any:
    """Return the fields of the backbone's spec in a file of this project; before 0.2 they were called "trunk"."""
    return content.get("backbone", content.get("trunk"))


def declared(fields: Any, found: Any, path: object) -> Any:
    """What a file of ours says of its backbone or pixels, which must not contradict what the weights tell (``found``)."""
    try:
        if not is_brief(fields):
            raise ValueError("it says too much")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        for name, value in values.items():
            if not _is_alike(value, getattr(found, name)):
                raise ValueError(f"{name} is {value!r}")
        said = type(found)(**values)
        told = replace(found, **{name: values[name] for name in values.keys() & _UNTOLD})
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not say which backbone it holds ({error}); write it again") from error
    if said != told:
        raise UserError(f"{path} says it holds {said}, its weights are of {told}; one of the two is wrong")
    return said


def _is_alike(value: Any, example: Any) -> bool:
    """Of the same fmt: as many finite numbers, one of the words, a truth value."""
    if isinstance(example, tuple):
        return isinstance(value, tuple) and len(value) == len(example) and all(map(_is_alike, value, example))
    if isinstance(example, bool | str):
        return type(value) is type(example) and (example not in _ORDERS or value in _ORDERS)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_ORDERS = ("RGB", "BGR")


_UNTOLD = {"output_stride", "heads", "stride_in_1x1", "avg_down", "order", "mean", "std"}
"""Fields that no weight tells."""
