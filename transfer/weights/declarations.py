"""What files and formats declare of a backbone: its spec and its pixels, as far as no weight shows them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from torch import Tensor

from pixbench.errors import UserError, an
from pixbench.file_versions import CHECKPOINT_FORMAT, CHECKPOINT_VERSION, WEIGHTS_KEY
from pixbench.result_schema import Pretraining
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_spec import NamedSpec
from transfer.weights.backbone import infer_spec
from transfer.weights.contents import Contents
from transfer.weights.file_format import Format
from transfer.weights.recognition import named_spec_in
from transfer.weights.sources import Source
from transfer.weights.spec import Spec
from transfer.weights.stand_ins import entries
from transfer.weights.tensors import is_brief
from transfer.weights.vit_spec import VitSpec

PERMIT = "PIXBENCH_NETWORKS"
"""Environment variable with the modules, separated by commas, whose code a weight file may name."""


def as_the_file_says(contents: Contents, fmt: Format, spec: Spec, source: Source) -> tuple[Spec, Any]:
    """Return spec and pixels: those that a file of this project declares, otherwise those of the source or the format."""
    held, path = contents.entries, source.name
    if is_checkpoint(held):
        version = held.get("version")
        if type(version) is not int or not 1 <= version <= CHECKPOINT_VERSION:
            raise UserError(
                f"{path} is a pre-training checkpoint "
                f"{f'of version {version}' if is_brief(version) else 'without a valid version'}, "
                f"but this PixBench reads versions 1 to {CHECKPOINT_VERSION}; use the PixBench that wrote it"
            )
        return _declared_spec(held, spec, path), fmt.pixels
    if (about := entries(held.get(WEIGHTS_KEY))) is not None:
        return _declared_spec(about, spec, path), declared(about.get("pixels"), fmt.pixels, path)
    if source.backbone and isinstance(spec, BackboneSpec):
        spec = replace(spec, **source.backbone)
    grouped = isinstance(spec, BackboneSpec) and spec.groups > 1
    return spec, source.pixels or (fmt.grouped.get("pixels", fmt.pixels) if grouped else fmt.pixels)


def _declared_spec(content: Mapping[Any, Any], spec: Spec, path: object) -> Spec:
    """Return the spec that ``content`` declares; a `NamedSpec` is the declaration itself."""
    return spec if isinstance(spec, NamedSpec) else declared(spec_in(content), spec, path)


def spec_in_file(contents: Contents, fmt: Format, state: Mapping[str, Tensor], path: object) -> Spec:
    """Return the spec that a file declares by a name, or else the one that its weights ``state`` show.

    Raises:
        UserError: There is no such network, or the file names code that was not permitted.
    """
    fields = spec_in(contents.entries)
    if fields is None:
        fields = spec_in(entries(contents.entries.get(WEIGHTS_KEY)) or {})
    if not named_spec_in(fields):
        return as_in_format(infer_spec(state, str(path)), fmt, path)
    try:
        if not is_brief(fields):
            raise ValueError("the description is too long")
        spec = NamedSpec(**fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} does not describe its backbone correctly ({error}); write the file again") from error
    permitted = os.environ.get(PERMIT, "").split(",")
    if spec.family != "timm" and spec.family not in permitted:
        raise UserError(
            f"{path} holds a backbone of {spec.name}, and building it runs the code of that module; if you trust it, permit it: "
            f"write {PERMIT}={spec.family} before the command"
        )
    return spec


def pretraining_in(contents: Contents) -> dict[str, Any] | None:
    """Return the pre-training run that a file of this project names; None if it names none, or not in a readable way."""
    held = contents.entries
    found = (entries(held.get(WEIGHTS_KEY)) or {}).get("pretraining")
    try:
        if is_checkpoint(held):
            config = dict(held["config"])
            found = {name: config[name] for name in ("seed", "epochs", "out")}
            found |= {name: held[name] for name in ("method", "step", "finished", "images")}
            found["config_sha256"] = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
        return msgspec.to_builtins(msgspec.convert(found, Pretraining))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None


def resized_in(contents: Contents) -> bool:
    """Whether a file of this project says that `transfer.weights.larger_patches` changed its weights."""
    return (entries(contents.entries.get(WEIGHTS_KEY)) or {}).get("resized") is True


def is_checkpoint(content: Mapping[Any, Any]) -> bool:
    """Whether ``content`` is that of a pre-training checkpoint of this project."""
    kind = content.get("format")
    return isinstance(kind, str) and kind == CHECKPOINT_FORMAT


def as_in_format(spec: Spec, fmt: Format, path: object) -> Spec:
    """Return the spec with the fields that the format defines; where the stride is in a bottleneck is no matter of others.

    Raises:
        UserError: The format defines the heads of ViTs of other widths.
    """
    fields = fmt.backbone | ({"avg_down": True} if fmt.names.averages else {})
    if isinstance(spec, VitSpec) and "heads" in fields:
        if spec.width not in fields["heads"]:
            raise UserError(
                f"{path} holds a ViT of width {spec.width}; {an(fmt.title)} has the width "
                f"{' or '.join(map(str, fields['heads']))}, and no weight shows the number of heads of others"
            )
        fields["heads"] = fields["heads"][spec.width]
    if isinstance(spec, BackboneSpec) and spec.groups > 1:
        fields |= fmt.grouped.get("backbone", {})
    if isinstance(spec, BackboneSpec) and spec.basic:
        fields.pop("stride_in_1x1", None)
    return replace(spec, **fields)


def spec_in(content: Mapping[Any, Any]) -> Any:
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
