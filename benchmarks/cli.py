"""`pixbench`: one command, a sub-command for each thing to do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pretrain.errors import run_command


def build_parser() -> argparse.ArgumentParser:
    from benchmarks import doctor, suite, tables
    from benchmarks.miniworld import command as data
    from benchmarks.probe import command as probe
    from pretrain import command as methods
    from transfer import command as transfer
    from transfer.weights import command as weights

    parser = argparse.ArgumentParser(prog="pixbench", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (doctor, data, methods, weights, transfer, probe, suite, tables):
        module.register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv  # welcome anywhere on the line
    args = build_parser().parse_args([word for word in argv if word != "--debug"])
    return run_command(lambda: args.run(args), name="pixbench", debug=debug)


if __name__ == "__main__":
    sys.exit(main())
