"""Weights of ResNet trunks: read from any known file, written for any known framework, proved by forward parity.

`load(path) -> Trunk`, `save(trunk, path, layout)`, `load_into(model, trunk, layout)`, `verify(trunk, path, layout)` and
`convert(source, output, layout)` are the interface. They are imported when first asked for: PyTorch is needed by `load`,
`read`, `load_into` and `verify`, frameworks by `verify` alone, neither by what turns one file into another.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer.weights.conversion import Conversion as Conversion
    from transfer.weights.conversion import convert as convert
    from transfer.weights.layouts import LAYOUTS as LAYOUTS
    from transfer.weights.layouts import express as express
    from transfer.weights.layouts import to_target as to_target
    from transfer.weights.models.live import load_into as load_into
    from transfer.weights.models.parity import Parity as Parity
    from transfer.weights.models.parity import verify as verify
    from transfer.weights.readers import Reading as Reading
    from transfer.weights.readers import load as load
    from transfer.weights.readers import read as read
    from transfer.weights.readers import read_arrays as read_arrays
    from transfer.weights.trunk import Counts as Counts
    from transfer.weights.trunk import Trunk as Trunk
    from transfer.weights.trunk import check as check
    from transfer.weights.trunk import infer_spec as infer_spec
    from transfer.weights.writers import save as save

_HOMES = {
    "conversion": ("Conversion", "convert"),
    "layouts": ("LAYOUTS", "express", "to_target"),
    "models.live": ("load_into",),
    "models.parity": ("Parity", "verify"),
    "readers": ("Reading", "load", "read", "read_arrays"),
    "trunk": ("Counts", "Trunk", "check", "infer_spec"),
    "writers": ("save",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
