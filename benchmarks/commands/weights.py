"""`pixbench weights`: inspect a weight file, and verify that two files hold the same backbone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.commands.convert import SOURCE, add_choice, choice_of


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    weights = subparsers.add_parser("weights", help="inspect and compare weight files")
    actions = weights.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = actions.add_parser("inspect", help="show the format of a file and its backbone (takes a second)")
    parser.add_argument("file", metavar="FILE", help=SOURCE)
    add_choice(parser, "FILE", branch=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_inspect)
    parser = actions.add_parser(
        "verify", help="verify that two files hold the same backbone, stage by stage; writes B.verified.json beside B"
    )
    parser.add_argument("file", metavar="A", help=SOURCE)
    parser.add_argument(
        "other", type=Path, metavar="B", help="other file; a framework's file runs in that framework's model"
    )
    add_choice(parser, "A")
    parser.set_defaults(run=run_verify)
    parser = actions.add_parser("formats", help="list the formats that can be read, with their names for --from")
    parser.set_defaults(run=run_formats)


def run_formats(_args: argparse.Namespace) -> None:
    """Print the formats that can be read."""
    from transfer.weights import inspection

    rows = [[text.replace("`", "") for text in row[:-1]] for row in inspection.rows()]
    widths = [None, 34, 36, 30]  # longer texts continue on the next line
    print(tabulate(rows, inspection.HEADERS[:-1], maxcolwidths=widths, disable_numparse=True).replace("`", ""))
    print("\nSources of the names: docs/weights.md")


def run_inspect(args: argparse.Namespace) -> None:
    """Print the format and the backbone of a file."""
    from transfer.weights import inspection

    found = inspection.inspect(args.file, args.format_name, args.prefix, args.container)
    print(json.dumps(found, indent=2) if args.json else inspection.report(found))


def run_verify(args: argparse.Namespace) -> None:
    """Compare the backbones of two files and print the differences; raise UserError if they are not the same."""
    from transfer.weights.conversion import prove

    parity, record, reading = prove(args.file, args.other, **choice_of(args))
    print(f"compared {args.file} ({reading.layout.title}, {reading.branch} branch) with {args.other} in {parity.title}")
    print("\n".join([*parity.table(), f"record   {record or 'none, the folder is not writable'}"]))
    others = [*reading.layout.branches, *(["ema"] if reading.averages else [])]
    choice = f"choose another backbone of {args.file} with --branch ({', '.join(others)})" if len(others) > 1 else ""
    parity.require(args.other, f"These are different weights{'; ' + choice if choice else ''}")
    print(parity.verdict)
