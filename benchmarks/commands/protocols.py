"""`pixbench protocols`: list, show and compare the transfer protocols."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import protocol_facts
from pixbench.errors import UserError
from transfer.datasets.layout import home_of
from transfer.protocols import Protocol, differences, find_protocol, protocols
from transfer.published_config import published_config

HEADERS = ("protocol", "framework", "data", "metrics", "GPU-hours")


def protocol_rows() -> list[tuple[str, str, str, str, str]]:
    """Return one row of texts for each protocol, under `HEADERS`."""
    return [
        (p.name, _framework(p), ", ".join(p.datasets), ", ".join(p.metrics), _hours(p)) for p in protocols().values()
    ]


def _framework(protocol: Protocol) -> str:
    """Return the framework, which says whether the backbone is frozen too."""
    return f"frozen ({protocol.framework})" if protocol.frozen else protocol.framework


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("protocols", help="list, show and compare the transfer protocols")
    parser.set_defaults(run=list_protocols)
    actions = parser.add_subparsers(metavar="ACTION")
    show = actions.add_parser("show", help="show one protocol with its sources and cost")
    show.add_argument("name", metavar="NAME", help="name of a protocol; `pixbench protocols` lists them")
    show.set_defaults(run=show_protocol)
    diff = actions.add_parser("diff", help="show the differences between the resolved configs of two protocols")
    diff.add_argument("one", metavar="ONE", help="name of a protocol; `pixbench protocols` lists them")
    diff.add_argument("other", metavar="OTHER", help="name of another protocol of the same framework")
    diff.set_defaults(run=diff_protocols)


def list_protocols(args: argparse.Namespace) -> None:
    """Print a table of all protocols."""
    print(tabulate(protocol_rows(), HEADERS))
    print("\nDetails of one protocol: pixbench protocols show NAME")


def _hours(protocol: Protocol) -> str:
    hours = protocol.gpu_hours
    return "unknown" if hours is None else f"{hours:.0f} {str(protocol.cost['gpus']).partition(' ')[2]}"


def show_protocol(args: argparse.Namespace) -> None:
    """Print the description of one protocol."""
    protocol = find_protocol(args.name)
    about = {
        "framework": _framework(protocol),
        "folders": ", ".join(str(home_of(Path("DATA"), name)) for name in protocol.datasets),
        "evaluator": ", ".join(f"{ours} ({theirs})" for ours, theirs in protocol.metrics.items()),
        "columns": ", ".join(protocol.columns.values()),
        "config": f"configs/{protocol.config.parent.name}/{protocol.config.name}",
        "page": f"docs/protocols/{protocol.name}.md",
        "source": protocol.source,
        "GPU-hours": _hours(protocol),
    }
    if cost := protocol.cost:
        about["GPU-hours"] += (
            f": {cost['iterations']} iterations of {cost['seconds']} s on {cost['gpus']} ({cost['source']})"
        )
    print(f"{protocol.name}: {protocol.title}")
    for name, text in about.items():
        print(f"  {name + ':':<11}{text}")
    for name, text in protocol_facts.facts(protocol):
        print(f"  {name}: {text}")
    print("  networks, with an example of each family:")
    for line in _answers(protocol):
        print(f"    {line}")
    print(f"  start it with: {_command(protocol)}")
    print("  a network of your own: write PIXBENCH_NETWORKS=MODULE before the command (docs/methods/backbones.md)")
    if rows := protocol_facts.settings(protocol):
        print("\n" + tabulate(rows, protocol_facts.HEADERS, disable_numparse=True))


def _answers(protocol: Protocol) -> Iterator[str]:
    """Yield a line for each family of networks: whether the protocol takes it, and if not, why."""
    from benchmarks.families import answers, example

    try:
        found = answers(protocol)
    except ImportError as error:
        yield f"not known here: {protocol.framework} is not installed ({error}); run scripts/install.sh (make install)"
        return
    for family, answer in found.items():
        verdict = answer.verdict.replace("not published", "but published for other networks")
        yield f"{family} ({example(family)}): {': '.join(filter(None, (verdict, answer.reason)))}"
    if any(answer.verdict == "no" for answer in found.values()):
        yield "which protocols take the others: docs/protocols/README.md"


def _command(protocol: Protocol) -> str:
    """Return the command that runs the protocol from a checkpoint; its last words are for a trial."""
    run = "probe checkpoint.pth --protocols" if protocol.framework == "frozen" else "transfer"
    weights = "" if protocol.framework == "frozen" else " --weights checkpoint.pth"
    return f"pixbench {run} {protocol.name}{weights} --data-root DATA --out runs/{protocol.name} [--scale mini]"


def diff_protocols(args: argparse.Namespace) -> None:
    """Print the config keys in which two protocols of one framework differ."""
    one, other = find_protocol(args.one), find_protocol(args.other)
    if one.framework != other.framework:
        raise UserError(
            f"{one.name} is a protocol of {one.framework}, {other.name} of {other.framework}; give two of one framework"
        )
    found = differences(published_config(one), published_config(other))
    if not found:
        print(f"the configs of {one.name} and {other.name} do not differ")
        return
    print(tabulate([(key, *pair) for key, pair in found.items()], ["key", one.name, other.name], disable_numparse=True))
