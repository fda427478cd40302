"""`pixbench methods`: list the pre-training methods, their settings and their configs."""

from __future__ import annotations

import argparse
from typing import Any


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("methods", help="list the pre-training methods, their settings and configs")
    parser.add_argument("name", nargs="*", help="methods to list (default: all)")
    parser.set_defaults(run=list_methods)


def list_methods(args: argparse.Namespace) -> None:
    """Print name, title, configs and settings of each method.

    Raises:
        UserError: there is no method of a given name.
    """
    from pixbench.errors import UserError, did_you_mean
    from pretrain.method_descriptions import describe
    from pretrain.methods import METHODS

    unknown = [name for name in args.name if name not in METHODS]
    if unknown:
        hint = did_you_mean(unknown[0], METHODS)
        raise UserError(f"there is no method {', '.join(unknown)}{hint} (known: {', '.join(METHODS)})")
    print("\n\n".join(describe(name) for name in args.name or METHODS))
