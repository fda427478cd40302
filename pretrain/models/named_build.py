"""Build networks by their name: those of timm, and those of one's own."""

from __future__ import annotations

import importlib
import os
import re
import sys
from functools import lru_cache
from typing import Any

from torch import nn

from pixbench.errors import UserError, did_you_mean
from pretrain.models.named_spec import NamedSpec
from pretrain.models.shapes_only import shapes_only


@lru_cache(maxsize=16)
def empty(spec: NamedSpec) -> nn.Module:
    """Return the network of ``spec`` without values. It is shared: do not change it."""
    with shapes_only():
        return build(spec)


def build(spec: NamedSpec) -> nn.Module:
    """Return the network of ``spec``, newly initialised.

    Raises:
        UserError: There is no such network, or it does not take these options.
    """
    try:
        return _of_timm(spec) if spec.family == "timm" else _of_ones_own(spec)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        refuse_reading(spec, error)
        raise UserError(
            f"backbone {spec.name} cannot be built with options {spec.options} ({said(error)}); look at the arguments of that "
            "network"
        ) from error


def _of_timm(spec: NamedSpec) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"backbone {spec.name} needs the package timm: pip install timm") from error
    name, options = spec.function, spec.options
    if not timm.is_model(name):
        raise UserError(f"timm has no network {name!r}{did_you_mean(name.partition('.')[0], timm.list_models())}")
    if taken := {"pretrained", "num_classes", "features_only", "checkpoint_path"} & options.keys():
        raise UserError(
            f"backbone.options has {', '.join(sorted(taken))}, which PixBench sets itself; to start from published weights, "
            f"give init_from timm:{name}"
        )
    try:  # positions for other sizes of images are interpolated, in networks that can
        return timm.create_model(name, num_classes=0, **{"dynamic_img_size": True, **options})
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return timm.create_model(name, num_classes=0, **options)


def _of_ones_own(spec: NamedSpec) -> nn.Module:
    here = os.getcwd()
    if here not in sys.path:  # as with python -m
        sys.path.insert(0, here)
    try:
        function: Any = getattr(importlib.import_module(spec.family), spec.function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"backbone {spec.name} is not found ({error}); the module must be installed or lie below the current folder"
        ) from error
    network = function(**spec.options)
    declared = [getattr(network, name, None) for name in ("channels", "strides")]
    if not isinstance(network, nn.Module) or not all(isinstance(x, list | tuple) for x in declared):
        raise UserError(
            f"backbone {spec.name} must return a torch.nn.Module with the attributes channels and strides, a number for each "
            "map, see docs/methods/backbones.md"
        )
    return network


def refuse_reading(spec: NamedSpec, error: Exception) -> None:
    """Raise UserError if ``error`` says that the network asked for values on the meta device, which has none."""
    if re.search(r"\bmeta\b", str(error), re.IGNORECASE):
        raise UserError(
            f"backbone {spec.name} cannot be measured, because it reads values, and PixBench looks at a network with an empty "
            f"image, without values ({said(error)}); choose another network"
        ) from error


def said(error: Exception) -> str:
    """Return an error of other code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
