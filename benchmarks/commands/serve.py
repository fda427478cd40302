"""`pixbench serve`: show the report of folders that still grow, to a browser on this machine (docs/report.md)."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import replace
from typing import Any

from benchmarks.commands.choice import add_choices, chosen, options_of

PORT = 8017


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("serve", help="show the report of folders that still grow, on 127.0.0.1 only")
    add_choices(parser)
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: one that is free")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Answer browsers of this machine until Ctrl-C."""
    from benchmarks.report.section import Contents, read_contents
    from benchmarks.report.server import Pages, server
    from benchmarks.results.reading import check_folders

    check_folders(args.runs)

    def contents() -> Contents:
        read = read_contents(args.runs, options_of(args))
        return replace(read, groups=chosen(read.groups, args))

    with server(Pages(args.runs, contents), args.port) as running:
        print(f"the report is at http://127.0.0.1:{running.server_port} on this machine; Ctrl-C ends this", flush=True)
        with suppress(KeyboardInterrupt):
            running.serve_forever()
