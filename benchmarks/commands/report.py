"""`pixbench report`: write all results as one HTML page (docs/report.md)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.commands.choice import add_choices, chosen, options_of
from pixbench.errors import UserError, say


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("report", help="write all results as one HTML page, with charts and pictures")
    add_choices(parser)
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (default: report.html)"
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="also write the main figure, for a README or a paper (.png or .svg)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the page; with --figure, also the main figure."""
    from benchmarks.report.bars import write_main_figure
    from benchmarks.report.charts import FORMATS
    from benchmarks.report.page import page
    from benchmarks.report.section import read_contents
    from benchmarks.report.summary import FIRST
    from pixbench.files import write_text

    if args.figure and args.figure.suffix not in FORMATS:
        raise UserError(f"--figure {args.figure}: the main figure is a .png or .svg file; choose one of these endings")
    if args.figure and args.figure.absolute() == args.out.absolute():
        raise UserError(f"--figure and --out are both {args.out}; choose a name for each")
    contents = read_contents(args.runs, options_of(args))
    for line in contents.left_out:
        say(f"left out: {line}")
    if not contents.results.found:
        raise UserError(
            f"there are no results below {', '.join(map(str, args.runs))} that can be used; run something first, for example: "
            f"{FIRST[0]}"
        )
    contents = replace(contents, groups=chosen(contents.groups, args))
    contents.options.check(contents.labels)
    write_text(args.out, page(contents))
    print(f"written: {args.out} ({args.out.stat().st_size / 1e6:.1f} MB, {len(contents.results.found)} results)")
    if args.figure:
        write_main_figure(contents, args.figure)
        print(f"written: {args.figure}")
