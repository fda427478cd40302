"""`pixbench pretrain`: pre-train a backbone, like `python -m pretrain`. `pretrain.config` parses its arguments.

Only this command reads the weights that the setting ``init_from`` names.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixbench.errors import UserError
from pixbench.file_versions import CHECKPOINT_FILE

if TYPE_CHECKING:
    from pretrain.initial_weights import InitialWeights
    from pretrain.models.backbone_spec import BackboneSpec
    from pretrain.models.named_spec import NamedSpec
    from pretrain.settings import RunConfig
    from transfer.weights.backbone import Backbone
    from transfer.weights.sources import Source


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the list of commands; `main` passes its arguments to `pretrain`."""
    subparsers.add_parser("pretrain", add_help=False, help="pre-train a backbone (settings: pixbench pretrain --help)")


def pretrain(argv: list[str]) -> int:
    """Run ``pixbench pretrain`` with the arguments ``argv`` and return the exit code."""
    from pretrain.__main__ import main

    return main(argv, name="pixbench pretrain", initial_weights=initial_weights)


def initial_weights(config: RunConfig) -> InitialWeights | None:
    """Read the weights that ``config.init_from`` names; None if there are none, or if a continued run can do without.

    Raises:
        UserError: They cannot be read, are of another network, or take other pixels than pre-training gives.
    """
    from pretrain.initial_weights import InitialWeights
    from transfer.weights.file_format import Pixels
    from transfer.weights.sources import locate

    if not config.init_from:
        return None
    try:
        located = locate(config.init_from)
        backbone, sha256 = _read(located, config.backbone), located.sha256
    except UserError:
        if (Path(config.out) / CHECKPOINT_FILE).exists():  # it holds the weights; the file may be gone
            return None
        raise
    if backbone.pixels != Pixels():
        raise UserError(
            f"init_from {config.init_from} takes {backbone.pixels}, but pre-training gives {Pixels()}; choose other weights"
        )
    parts = dict.fromkeys(name.partition(".")[0] for name in backbone.extras)
    return InitialWeights(config.init_from, sha256, backbone.pretrainable, backbone.state, " and ".join(parts))


def _read(source: Source, wanted: BackboneSpec | NamedSpec) -> Backbone:
    """Return the backbone in ``source``; if the file does not name its network itself, as that of the run, if that is timm's."""
    from pretrain.models.named_spec import NamedSpec
    from transfer.weights import load
    from transfer.weights.vit_spec import VitSpec

    of_timm = isinstance(wanted, NamedSpec) and wanted.family == "timm"
    try:
        backbone = load(source)
    except UserError:
        if not of_timm:
            raise
    else:
        if not (of_timm and isinstance(backbone.spec, VitSpec)):
            return backbone
    assert isinstance(wanted, NamedSpec)
    return load(source, format_name=f"{wanted.name} {json.dumps(wanted.options)}")
