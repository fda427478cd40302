"""`pixbench zoo`: list, show, copy, check and add the backbones of the zoo (docs/zoo.md)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pixbench.errors import UserError, printable, say


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    zoo = subparsers.add_parser("zoo", help="small backbones that come with the project, for use as zoo:NAME")
    actions = zoo.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, about: str, run: Any) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=about, description=about)
        added.set_defaults(run=run)
        return added

    action("list", "list all backbones", _list)
    show = action("show", "show what is known of a backbone: command, images, curve, digest", _show)
    get = action("get", "copy a backbone, its settings and its result into a folder", _get)
    get.add_argument("--out", type=Path, required=True, help="folder that gets a folder of that name")
    for parser in (show, get):
        parser.add_argument("name", help="name of the backbone, with or without zoo:")
    verify = action("verify", "compare all files with their recorded digests, and read each backbone", _verify)
    verify.add_argument("names", nargs="*", metavar="NAME", help="backbones to check (default: all)")
    add = action("add", "put the backbone of a finished pre-training run into the zoo", _add)
    add.add_argument("pretraining", type=Path, metavar="RUN", help="folder of the pre-training run")
    add.add_argument("--name", required=True, help="its name in the zoo")


def _list(_args: argparse.Namespace) -> None:
    from tabulate import tabulate

    from benchmarks.zoo.card import HEADS, row
    from benchmarks.zoo.entry import entries
    from pixbench.paths import ZOO

    rows, damaged = [], []
    for entry in entries():
        try:
            rows.append(row(entry))
        except (UserError, OSError) as error:
            damaged.append(printable(f"left out: {error}"))
    print(tabulate(rows, HEADS, tablefmt="simple", disable_numparse=True) if rows else f"no backbone in {ZOO}")
    print("\n".join(damaged), end="\n" * bool(damaged))


def _show(args: argparse.Namespace) -> None:
    from benchmarks.zoo.card import card
    from benchmarks.zoo.entry import find
    from benchmarks.zoo.measured import measured
    from pixbench.paths import STUDY

    print(card(find(args.name), measured(STUDY)))


def _get(args: argparse.Namespace) -> None:
    from benchmarks.zoo.entry import copy, find

    entry = find(args.name)
    place = copy(entry, args.out)
    print(f"copied to {place}; its weights are {place / entry.weights.name}")


def _verify(args: argparse.Namespace) -> int:
    from benchmarks.zoo.entry import entries, find

    chosen = [find(name) for name in args.names] or entries()
    found = [(entry, entry.problems()) for entry in chosen]
    for entry, problems in found:
        for line in problems or [f"{entry.name}: as recorded"]:
            say(line)
    wrong = sum(bool(problems) for _, problems in found)
    print(f"{len(found) - wrong} of {len(found)} backbones are as recorded")
    return int(wrong > 0)


def _add(args: argparse.Namespace) -> None:
    from benchmarks.zoo.entry import add

    entry = add(args.pretraining, args.name)
    print(f"zoo:{entry.name} ({entry.weights.stat().st_size / 1e6:.1f} MB)")
