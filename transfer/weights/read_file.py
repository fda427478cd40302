"""Read a file into a `Backbone`. `transfer.weights.recognition` assigns the keys; the values are checked and converted here."""

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
from pixbench.file_versions import CHECKPOINT_VERSION, WEIGHTS_KEY
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import pyramid_head, recognition
from transfer.weights.backbone import Backbone, Counts, Problems, check, infer_spec
from transfer.weights.containers import safe
from transfer.weights.containers.arrays import cast, equal, in_order, is_brief, is_stretched, type_name
from transfer.weights.expected_shapes import expected
from transfer.weights.file_format import Format, formats
from transfer.weights.naming import is_counter
from transfer.weights.vit_spec import VitSpec

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Reading:
    """A backbone and how it was read."""

    backbone: Backbone
    format: str
    branch: str
    counts: Counts
    beside: list[str]
    """Other entries of the file: "epoch", "optimizer", ..."""


def load(path: str | PathLike[str], branch: str | None = None, format_name: str | None = None) -> Backbone:
    """Return the backbone in a file of any known format; all its weights are present and finite.

    Args:
        path: The checkpoint file.
        branch: Which backbone to read if the file holds two. The default is the first branch of the format.
        format_name: Name of the format. The default is to recognise it.
    """
    return read(path, branch, format_name).backbone


def read(path: str | PathLike[str], branch: str | None = None, format_name: str | None = None) -> Reading:
    """Read a backbone as `load` does; also return its format and the number of keys that were converted or dropped."""
    reading = read_arrays(path, branch, format_name)
    return replace(reading, backbone=reading.backbone.tensors())


def read_arrays(path: str | PathLike[str], branch: str | None = None, format_name: str | None = None) -> Reading:
    """Read a backbone as `read` does, but with numpy arrays and without importing PyTorch."""
    content = safe.read(Path(path))
    name = recognition.recognise(content, path, format_name)
    fmt = recognition.as_declared(formats()[name], content)
    branch = branch or next(iter(fmt.branches))
    if branch not in fmt.branches:
        raise UserError(
            f"{path} is of the format {name} ({fmt.title}), which has no branch {branch!r};"
            f" choose one of: {', '.join(fmt.branches)}"
        )
    table = recognition.table(content, fmt)
    assert table is not None  # the format was recognised
    state, extras, dropped, types = _sort(table.weights, fmt, branch, path)
    spec = replace(infer_spec(state, str(path)), **fmt.backbone)
    counts = Counts(len(state) + len(extras), dropped, _fill_norms(state, extras, fmt, spec), types)
    pixels = fmt.pixels
    if name == "pixbench" and "format" in content:
        version = content.get("version")
        if type(version) is not int or not 1 <= version <= CHECKPOINT_VERSION:
            raise UserError(
                f"{path} is a pre-training checkpoint "
                f"{f'of version {version}' if is_brief(version) else 'without a valid version'}, "
                f"but this PixBench reads versions 1 to {CHECKPOINT_VERSION}; use the PixBench that wrote it"
            )
        spec = declared(spec_in(content), spec, path)
    elif isinstance(about := content.get(WEIGHTS_KEY), Mapping):
        spec = declared(spec_in(about), spec, path)
        pixels = declared(about.get("pixels"), pixels, path)
    backbone = Backbone(spec, state, str(path), extras, pixels)
    check(backbone)
    return Reading(backbone, name, branch, counts, table.beside)


def _sort(
    weights: Mapping[str, Any], fmt: Format, branch: str, path: str | PathLike[str]
) -> tuple[Arrays, Arrays, dict[str, int], dict[str, int]]:
    """Return backbone and extras of the branch by canonical name, the number of dropped keys by reason, and of cast types."""
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
    problems.add("with the same name as another key", (key for key, name in named.items() if owners[name] != key))
    found = {name: weights[key] for key, name in sorting.backbone.items()}
    beside = {name: weights[key] for key, name in sorting.extras.items()}
    if beside and fmt.naming == "detectron2_fpn":
        extras = pyramid_head.from_detectron2(beside)
        again = pyramid_head.to_detectron2(extras)
        second = [place for place in again if pyramid_head.TOWERS[1] in place and place in beside]
        problems.add("unknown", (place for place in beside if place not in again))
        problems.add(
            "of a second tower that differs from the first", (n for n in second if not _equal(beside[n], again[n]))
        )
        dropped.update({"second tower of the head": len(second)} if second else {})
    else:
        extras = beside
        known = pyramid_head.TWO_STAGE if pyramid_head.two_stage(extras) else pyramid_head.NAMES
        problems.add("unknown", (name for name in extras if name not in known))
    both = found | extras
    problems.add("not a tensor", (name for name, value in both.items() if not isinstance(value, np.ndarray)))
    problems.add("larger than their stored data", (name for name, value in both.items() if _is_stretched(value)))
    problems.raise_if_any(
        f"{path} holds keys that a {fmt.title} should not have",
        "unknown keys are never skipped, so use another file; `pixbench weights inspect` lists all unknown keys",
        most=12,
    )
    if sum(array.nbytes for array in both.values()) > 2 * Path(path).stat().st_size:
        raise UserError(f"{path} holds the same numbers under many names, together larger than the file; save it again")
    types: Counter[str] = Counter()
    uniform = {name: _uniform(name, in_order(array), types) for name, array in both.items()}
    return {n: uniform[n] for n in found}, {n: uniform[n] for n in extras}, dict(dropped), dict(types)


def _is_stretched(value: Any) -> bool:
    return isinstance(value, np.ndarray) and is_stretched(value)


def _equal(a: Any, b: Any) -> bool:
    return all(isinstance(x, np.ndarray) for x in (a, b)) and not is_stretched(a) and equal(a, b)


def _uniform(name: str, array: np.ndarray, types: Counter[str]) -> np.ndarray:
    """Cast to the type of a backbone if no value changes. Otherwise return ``array`` unchanged; `check` will refuse it."""
    wanted, others = ("int64", _INTEGERS) if is_counter(name) else ("float32", _FLOATS)
    before = type_name(array)
    if before not in others or (other := cast(array, wanted)) is None:
        return array
    types[f"{before} to {wanted}"] += 1
    return other


_FLOATS = ("float16", "bfloat16", "float64")
_INTEGERS = ("int32", "float32", "float64")


def _fill_norms(state: Arrays, extras: Arrays, fmt: Format, spec: BackboneSpec | VitSpec) -> dict[str, int]:
    """Fill in what norms lack by design, and return how many tensors were added for which reason.

    Added are counters (0), and statistics that were folded into weight and bias (mean 0, variance 1, as in Detectron2).
    Nothing is added to a file that has some of the counters or statistics; `check` refuses it. Detectron2 is an exception for
    counters: its frozen norms have none, but its trained norms do.
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
    """Return the fields of the backbone's spec in a file of this project; the key was "trunk" before version 0.2."""
    return content.get("backbone", content.get("trunk"))


def declared(fields: Any, found: Any, path: object) -> Any:
    """Return the spec or pixels that a PixBench file declares; they must agree with ``found``, which the weights show."""
    try:
        if not is_brief(fields):
            raise ValueError("the description is too long")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        for name, value in values.items():
            if not _is_alike(value, getattr(found, name)):
                raise ValueError(f"{name} is {value!r}")
        declared_value = type(found)(**values)
        expected_value = replace(found, **{name: values[name] for name in values.keys() & _ONLY_DECLARED})
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} does not describe its backbone correctly ({error}); write the file again") from error
    if declared_value != expected_value:
        raise UserError(
            f"{path} declares {declared_value}, but its weights are those of {expected_value}; write the file again"
        )
    return declared_value


def _is_alike(value: Any, example: Any) -> bool:
    """Whether ``value`` has the form of ``example``: as many finite numbers, an allowed word, or a boolean."""
    if isinstance(example, tuple):
        return isinstance(value, tuple) and len(value) == len(example) and all(map(_is_alike, value, example))
    if isinstance(example, bool | str):
        return type(value) is type(example) and (example not in _ORDERS or value in _ORDERS)
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_ORDERS = ("RGB", "BGR")


_ONLY_DECLARED = {"output_stride", "heads", "stride_in_1x1", "avg_down", "order", "mean", "std"}
"""Fields that do not follow from the weights."""
