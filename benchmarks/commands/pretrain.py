"""`pixbench pretrain`: pre-train a backbone. The same as `python -m pretrain`; its words are parsed by `pretrain.config`."""

from __future__ import annotations

import argparse
from typing import Any


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command's line to the list of commands; `main` hands its words to `pretrain.__main__`."""
    subparsers.add_parser("pretrain", add_help=False, help="pre-train a backbone (settings: pixbench pretrain --help)")
