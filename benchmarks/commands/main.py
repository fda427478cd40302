"""`pixbench`: pre-train, convert, fine-tune and compare backbones, with one sub-command for each task."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pixbench.errors import run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; each sub-command registers itself."""
    from benchmarks.commands import (
        convert,
        data,
        doctor,
        methods,
        pretrain,
        probe,
        protocols,
        replay,
        report,
        results,
        serve,
        suite,
        table,
        transfer,
        watch,
        weights,
        zoo,
    )

    parser = argparse.ArgumentParser(prog="pixbench", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # whether a command goes on after an interruption; those that do say so
    parser.set_defaults(continues=lambda args: False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        doctor,
        data,
        methods,
        pretrain,
        replay,
        convert,
        weights,
        protocols,
        transfer,
        probe,
        suite,
        watch,
        table,
        report,
        serve,
        results,
        zoo,
    ):
        module.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: that of this process) and return the exit code of `run_command`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv  # accepted anywhere on the command line
    words = [word for word in argv if word != "--debug"]
    if words[:1] == ["pretrain"]:  # its settings depend on the method, so it parses its own arguments
        from benchmarks.commands.pretrain import pretrain

        return pretrain(argv[argv.index("pretrain") + 1 :] + ["--debug"] * debug)
    args = build_parser().parse_args(words)
    return run_command(lambda: args.run(args), name="pixbench", debug=debug, continues=args.continues(args))
