"""`pixbench table`: make the comparison tables from finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.tables import BEGIN, END, insert, write_tables


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("table", help="make the comparison tables from finished runs")
    parser.add_argument("runs", type=Path, help="folder with result.json files, at any depth")
    parser.add_argument("--out", type=Path, help="folder for table.md and table.csv (default: RUNS)")
    parser.add_argument("--into", type=Path, help=f"document to insert the table into, between {BEGIN} and {END}")
    parser.add_argument("--rows", nargs="+", default=(), metavar="LABEL", help="rows that come first, in this order")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write and print the tables; with --into, also insert them into a document."""
    out = args.out or args.runs
    text = write_tables(args.runs, out, args.rows, must_exist=True)
    print(text)
    print(f"written: {out / 'table.md'} and {out / 'table.csv'}")
    if args.into:
        insert(text.replace("\n## ", "\n### ").partition("\n\n")[2], args.into)
