"""`pixbench pretrain`: pre-train a backbone, like `python -m pretrain`. `pretrain.config` parses its arguments."""

from __future__ import annotations

import argparse
from typing import Any


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the list of commands; `main` passes its arguments to `pretrain.__main__`."""
    subparsers.add_parser("pretrain", add_help=False, help="pre-train a backbone (settings: pixbench pretrain --help)")
