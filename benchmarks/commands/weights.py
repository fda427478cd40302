"""`pixbench weights`: say what a file of weights is, and whether two files hold the same backbone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    weights = subparsers.add_parser("weights", help="look at files of weights")
    actions = weights.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = actions.add_parser("inspect", help="say what a file is and which backbone it holds, in a second")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--from", dest="format_name", metavar="FORMAT", help="what FILE is, where its keys do not tell")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_inspect)
    parser = actions.add_parser("verify", help="prove that two files hold the same backbone, stage by stage")
    parser.add_argument("file", type=Path, metavar="A", help="any file of docs/weights.md")
    parser.add_argument("other", type=Path, metavar="B", help="another; runs in its framework's model if it is of one")
    parser.add_argument(
        "--branch", choices=("student", "momentum_encoder"), help="backbone of A to take (default: student)"
    )
    parser.add_argument("--from", dest="format_name", metavar="FORMAT", help="what A is, where its keys do not tell")
    parser.set_defaults(run=run_verify)
    parser = actions.add_parser("formats", help="list what can be read, with the names for --from")
    parser.set_defaults(run=run_formats)


def run_formats(_args: argparse.Namespace) -> None:
    from transfer.weights import inspection

    print(inspection.listing())


def run_inspect(args: argparse.Namespace) -> None:
    from transfer.weights import inspection

    found = inspection.inspect(args.file, args.format_name)
    print(json.dumps(found, indent=2) if args.json else inspection.report(found))


def run_verify(args: argparse.Namespace) -> None:
    from transfer.weights.conversion import prove

    parity, record = prove(args.file, args.other, args.branch, args.format_name)
    print("\n".join([*parity.table(), f"record   {record or 'none, that folder cannot be written to'}"]))
    parity.require(args.other)
    print(parity.verdict)
