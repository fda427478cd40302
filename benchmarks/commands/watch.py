"""`pixbench watch`: show in the terminal what the runs below some folders do (docs/report.md)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

EVERY_S = 2.0


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("watch", help="show in the terminal what runs: progress, loss, time left, failures")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUNS", help="folders of runs or suites")
    parser.add_argument("--once", action="store_true", help="show it once and stop; so it is without a terminal")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Show the table, and update it in place until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from benchmarks.results.reading import check_folders

    check_folders(args.runs)
    console = Console()
    if args.once or not console.is_terminal:
        console.print(_shown(args.runs))
        return
    with suppress(KeyboardInterrupt), Live(_shown(args.runs), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(EVERY_S)
            live.update(_shown(args.runs), refresh=True)


def _shown(folders: Sequence[Path]) -> Any:
    """Return the table of what runs, with what has ended above it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from benchmarks.report.progress import HEADS, begun, ended
    from benchmarks.results.reading import read_all
    from pixbench.errors import printable

    results = read_all(folders)
    runs, failed = [*begun(folders)], [*ended(folders)]
    bad = sum(result["status"] != "ok" for _, result in results.found)
    counts = [(len(runs), "in progress"), (len(results.found) - bad, "done"), (bad, "failed")]
    counts += [(len(results.left_out), "with an unusable result")]
    lines = [Text(", ".join(f"{number} {words}" for number, words in counts if number) or "nothing has begun here yet")]
    lines += [Text(printable(f"FAILED {job}: {reason}"), style="bold red") for job, reason in failed]
    if not runs:
        return Group(*lines)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in HEADS:
        table.add_column(head, overflow="fold")
    for found in runs:
        table.add_row(
            *(Text(printable(text)) for text in found.cells()), style="cyan" if found.state == "running" else "yellow"
        )
    return Group(*lines, table)
