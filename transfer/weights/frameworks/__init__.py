"""Frameworks for which weights can be written: one file each, found by its place in this folder.

`express` refuses a backbone that a framework cannot represent exactly, and gives the reason.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pixbench.errors import UserError, an, did_you_mean
from pretrain.models.named_spec import NamedSpec
from transfer.weights import pyramid_head
from transfer.weights.file_format import Pixels
from transfer.weights.frameworks.record import Framework, FrameworkModel
from transfer.weights.naming import Naming, is_counter

if TYPE_CHECKING:
    from torch import Tensor

    from transfer.weights.backbone import Backbone


def _records() -> dict[str, Framework]:
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    return {record.name: record for module in modules for record in getattr(module, "RECORDS", ())}


FRAMEWORKS: Mapping[str, Framework] = _records()
"""All frameworks by name."""


def find_framework(name: str) -> Framework:
    """Return the framework called ``name``; raise `UserError` if there is none."""
    if name not in FRAMEWORKS:
        raise UserError(
            f"there is no weight framework {name!r}{did_you_mean(name, FRAMEWORKS)}; known: {', '.join(FRAMEWORKS)}"
        )
    return FRAMEWORKS[name]


def express(backbone: Backbone, framework: str) -> Backbone:
    """Return ``backbone`` in a form that ``framework`` can represent exactly.

    If pixels are not a setting of the framework, a BGR backbone becomes an RGB one: the input channels of its first
    convolution are reversed. For ViTDet, patches of 14 pixels are resized to 16.

    Raises:
        UserError: If the framework cannot represent the backbone; the message says why.
    """
    rules = find_framework(framework)
    if reason := _lacks(rules, backbone):
        able = [other.options for other in FRAMEWORKS.values() if not _lacks(other, backbone)]
        advice = f"convert it with {' or '.join(able)}" if able else "no framework supports it"
        raise UserError(f"{backbone.source}: {an(rules.title)} supports {reason}; {advice}")
    backbone = rules.fit(backbone) if rules.fit else backbone
    return _in_rgb(backbone) if not rules.pixels else backbone


def _in_rgb(backbone: Backbone) -> Backbone:
    if backbone.pixels.order == "RGB":
        return backbone
    first = next(name for name, tensor in backbone.state.items() if tensor.ndim == 4)
    pixels = Pixels("RGB", backbone.pixels.mean[::-1], backbone.pixels.std[::-1])
    return replace(backbone, state=backbone.state | {first: backbone.state[first].flip(1)}, pixels=pixels)


def _lacks(rules: Framework, backbone: Backbone) -> str | None:
    """Return what the framework supports, if it does not support the backbone; otherwise None."""
    if backbone.spec.variant not in rules.variants:
        variants = [variant for variant in rules.variants if variant != "named"]
        given = f"networks by name such as {backbone.spec.title}" if isinstance(backbone.spec, NamedSpec) else ""
        return f"backbones of variant {' / '.join(variants)}, not {given or backbone.spec.variant}"
    if reason := rules.lacks(rules.fit(backbone) if rules.fit else backbone):
        return f"no {reason}"
    pixels = _in_rgb(backbone).pixels
    return None if rules.pixels or pixels == Pixels() else f"no pixels other than {Pixels()}, but these need {pixels}"


def names_of(backbone: Backbone, framework: str) -> Naming:
    """Return the naming of ``framework`` for the variant of this backbone; raise `UserError` if it does not support that."""
    rules = find_framework(framework)
    if backbone.spec.variant not in rules.variants:
        express(backbone, framework)  # raises the error
    return rules.variants[backbone.spec.variant]


def to_framework(backbone: Backbone, framework: str) -> dict[str, Tensor]:
    """Return the tensors by their full names in the framework: the backbone in canonical order, then pyramid and head.

    Pyramid and head are left out if the framework cannot hold them.
    """
    rules, names = find_framework(framework), names_of(backbone, framework)
    if rules.translate and isinstance(backbone.spec, NamedSpec):
        return rules.translate(backbone)
    named = {
        names.to_framework(name): tensor
        for name, tensor in backbone.state.items()
        if rules.counters or not is_counter(name)
    }
    if None in named:
        raise ValueError(f"some names of the backbone do not exist in {framework}; call `check` first")
    extras = {n: t for n, t in backbone.extras.items() if rules.pyramid_head and (rules.counters or not is_counter(n))}
    return {name: tensor for name, tensor in named.items() if name is not None} | pyramid_head.to_detectron2(extras)


__all__ = ["FRAMEWORKS", "Framework", "FrameworkModel", "express", "find_framework", "names_of", "to_framework"]
