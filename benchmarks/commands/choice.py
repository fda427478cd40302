"""What `pixbench table`, `report` and `serve` let a user choose alike: which results, in which order, compared with which row."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables.collected import Group
from benchmarks.tables.options import NO_BASELINE, USUAL_BASELINE, Options
from benchmarks.tables.pretraining import joined
from pixbench.errors import UserError
from transfer.protocols import KINDS, SCALES


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add RUNS and the options that choose among their results."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUNS", help="folders with result.json files, at any depth; all are read together"
    )  # fmt: skip
    parser.add_argument("--rows", nargs="+", default=(), metavar="LABEL", help="rows that come first, in this order")
    parser.add_argument(
        "--baseline",
        metavar="LABEL",
        help=f"row that the others are compared with (default: {USUAL_BASELINE}, if there is one; {NO_BASELINE}: no comparison)",
    )
    parser.add_argument(
        "--metrics",
        choices=("first", "table", "all"),
        default="table",
        help="show the first metric of each protocol, the main ones, or every metric that the results hold",
    )
    parser.add_argument(
        "--join-seeds", action="store_true", help="make one row of those whose pre-training differs in the seed alone"
    )
    parser.add_argument(
        "--interval",
        choices=("seeds", "images"),
        default="seeds",
        help="of what the 95 %% intervals are; images: where results store values of each, in seconds or minutes for each cell",
    )
    parser.add_argument("--scale", choices=SCALES, help="results of this scale only")
    parser.add_argument("--kind", choices=tuple(KINDS.values()), help="fine-tuned or frozen results only")


def options_of(args: argparse.Namespace) -> Options:
    """Return what the user chose about tables."""
    return Options(args.rows, args.baseline, args.metrics, args.interval, getattr(args, "full", False))


def chosen(groups: Sequence[Group], args: argparse.Namespace) -> list[Group]:
    """Return those of ``groups`` that the user chose.

    Raises:
        UserError: There are groups, but none of this scale and kind.
    """
    found = [g for g in groups if args.scale in (None, g.scale) and args.kind in (None, KINDS[g.kind])]
    if groups and not found:
        raise UserError("there are no results of this --scale and --kind below these folders")
    return [joined(group) for group in found] if args.join_seeds else found
