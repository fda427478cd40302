"""Read, write, convert and verify the weights of ResNet and ViT backbones.

The interface is `load(path) -> Backbone`, `save(backbone, path, framework)`, `load_into(model, backbone, framework)`,
`verify(backbone, path, framework)` and `convert(source, output, framework)`. Each name is imported at its first use, so that
the command line starts without PyTorch; the frameworks are needed only by `verify`, and by `convert` for its proof.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfer.weights.backbone import Backbone as Backbone
    from transfer.weights.backbone import Counts as Counts
    from transfer.weights.backbone import check as check
    from transfer.weights.backbone import infer_spec as infer_spec
    from transfer.weights.conversion import Conversion as Conversion
    from transfer.weights.conversion import convert as convert
    from transfer.weights.frameworks import FRAMEWORKS as FRAMEWORKS
    from transfer.weights.frameworks import express as express
    from transfer.weights.frameworks import to_framework as to_framework
    from transfer.weights.models.load_into import load_into as load_into
    from transfer.weights.models.parity import Parity as Parity
    from transfer.weights.models.parity import verify as verify
    from transfer.weights.read_file import Reading as Reading
    from transfer.weights.read_file import load as load
    from transfer.weights.read_file import read as read
    from transfer.weights.write_file import save as save

_MODULES = {
    "conversion": ("Conversion", "convert"),
    "frameworks": ("FRAMEWORKS", "express", "to_framework"),
    "models.load_into": ("load_into",),
    "models.parity": ("Parity", "verify"),
    "read_file": ("Reading", "load", "read"),
    "backbone": ("Counts", "Backbone", "check", "infer_spec"),
    "write_file": ("save",),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
