"""Weights of ResNet trunks: read from any known file, written for any known framework, proved by forward parity.

`load(path) -> Trunk`, `save(trunk, path, layout)`, `load_into(model, trunk, layout)`, `verify(trunk, path, layout)` and
`convert(source, output, layout)` are the interface. They are imported when first asked for: PyTorch is needed by `load`,
`read`, `load_into` and `verify`, frameworks by `verify` alone, neither by what turns one file into another.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer.weights.conversion import Conversion, convert
    from transfer.weights.layouts import LAYOUTS, express, to_target
    from transfer.weights.models.live import load_into
    from transfer.weights.models.parity import Parity, verify
    from transfer.weights.readers import Reading, load, read, read_arrays
    from transfer.weights.trunk import Counts, Trunk, check, infer_spec
    from transfer.weights.writers import save

_HOMES = {
    "conversion": ("Conversion", "convert"),
    "layouts": ("LAYOUTS", "express", "to_target"),
    "models.live": ("load_into",),
    "models.parity": ("Parity", "verify"),
    "readers": ("Reading", "load", "read", "read_arrays"),
    "trunk": ("Counts", "Trunk", "check", "infer_spec"),
    "writers": ("save",),
}
__all__ = [
    "LAYOUTS",
    "Conversion",
    "Counts",
    "Parity",
    "Reading",
    "Trunk",
    "check",
    "convert",
    "express",
    "infer_spec",
    "load",
    "load_into",
    "read",
    "read_arrays",
    "save",
    "to_target",
    "verify",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
