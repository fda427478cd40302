"""`pixbench table`: make the comparison tables from finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.tables import BEGIN, END, insert, write_tables
from benchmarks.tables.markdown import ALL_METRICS
from pixbench.errors import UserError


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("table", help="make the comparison tables from finished runs")
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNS", help="folders with result.json files, at any depth; all are read together"
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, help="folder for table.md and table.csv (default: RUNS, if it is one folder)"
    )
    parser.add_argument("--into", type=Path, help=f"document to insert the table into, between {BEGIN} and {END}")
    parser.add_argument("--rows", nargs="+", default=(), metavar="LABEL", help="rows that come first, in this order")
    parser.add_argument(
        ALL_METRICS, action="store_true", help="show every metric that the results hold, not only the main ones"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write and print the tables; with --into, also insert them into a document."""
    if len(args.runs) > 1 and not args.out:
        raise UserError(
            f"{len(args.runs)} folders of results are given: say with --out in which folder their tables belong"
        )
    out = args.out or args.runs[0]
    text = write_tables(args.runs, out, args.rows, must_exist=True, all_metrics=args.all_metrics)
    print(text)
    print(f"written: {out / 'table.md'} and {out / 'table.csv'}")
    if args.into:
        insert(text.replace("\n## ", "\n### ").partition("\n\n")[2], args.into)
