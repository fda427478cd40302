"""`pixbench convert`, from one kind of file to another; `pixbench weights`: say what a file is, compare two."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.errors import UserError

if TYPE_CHECKING:
    from transfer.weights.conversion import Conversion
    from transfer.weights.models.parity import Parity

LAYOUTS_OF = {
    "detectron2": ("detectron2_fpn", "detectron2_c4", "detectron2_vitdet"),
    "mmseg": ("mmseg",),
    "mmdet": ("mmseg",),
    "mmpretrain": ("mmpretrain",),
    "torchvision": ("torchvision",),
    "timm": ("timm",),
    "huggingface": ("huggingface",),
}
"""Frameworks -> their layouts; the first is the default."""


def register(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("convert", help="convert a checkpoint for a framework and prove that it arrived")
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="any file of docs/weights.md")
    parser.add_argument("--to", required=True, choices=tuple(LAYOUTS_OF), help="framework to write for")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help=".pkl for detectron2, else .pth; or .safetensors",
    )
    parser.add_argument(
        "--layout", choices=("fpn", "c4", "vitdet"), help="Detectron2's kind of detector (default: fpn)"
    )
    parser.add_argument("--branch", choices=("student", "target"), help="trunk to take (default: student)")
    parser.add_argument("--from", dest="form", metavar="FORMAT", help="what CKPT is, where its keys do not tell")
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the file in the framework and compare (default)",
    )
    parser.set_defaults(run=run)
    weights = subparsers.add_parser("weights", help="look at files of weights")
    actions = weights.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = actions.add_parser("inspect", help="say what a file is and which trunk it holds, in a second")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--from", dest="form", metavar="FORMAT", help="what FILE is, where its keys do not tell")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_inspect)
    parser = actions.add_parser("verify", help="prove that two files hold the same trunk, stage by stage")
    parser.add_argument("file", type=Path, metavar="A", help="any file of docs/weights.md")
    parser.add_argument("other", type=Path, metavar="B", help="another; runs in its framework's model if it is of one")
    parser.add_argument("--branch", choices=("student", "target"), help="trunk of A to take (default: student)")
    parser.add_argument("--from", dest="form", metavar="FORMAT", help="what A is, where its keys do not tell")
    parser.set_defaults(run=run_verify)
    parser = actions.add_parser("formats", help="list what can be read, with the names for --from")
    parser.set_defaults(run=run_formats)


def run_formats(_args: argparse.Namespace) -> None:
    from transfer.weights import inspection

    print(inspection.listing())


def run_inspect(args: argparse.Namespace) -> None:
    from transfer.weights import inspection

    found = inspection.inspect(args.file, args.form)
    print(json.dumps(found, indent=2) if args.json else inspection.report(found))


def run_verify(args: argparse.Namespace) -> None:
    from transfer.weights.conversion import prove

    parity, record = prove(args.file, args.other, args.branch, args.form)
    print("\n".join([*_differences(parity), f"record   {record or 'none, that folder cannot be written to'}"]))
    parity.require(args.other)
    print(_verdict(parity))


def run(args: argparse.Namespace) -> None:
    from transfer.weights.conversion import convert

    layout = f"{args.to}_{args.layout}" if args.layout else LAYOUTS_OF[args.to][0]
    if layout not in LAYOUTS_OF[args.to]:
        raise UserError(f"--layout {args.layout} means nothing to {args.to}; leave it out")
    print(report(convert(args.checkpoint, args.output, layout, args.branch, args.verify, args.form)))


def report(done: Conversion) -> str:
    """What the command prints."""
    from transfer.weights.format import formats

    reading = done.reading
    kind = formats()[reading.format]
    branch = f", {reading.branch} branch" if len(kind.branches) > 1 else ""
    lines = [
        f"read     {reading.trunk.source}: {kind.title}{branch}",
        f"trunk    {reading.trunk.spec.title}",
        f"keys     {reading.counts}" + (f"; beside them {', '.join(reading.beside)}" if reading.beside else ""),
        f"written  {done.written}",
    ]
    if done.parity is None:
        lines.append("verified no, left out on request")
    else:
        lines += [*_differences(done.parity), _verdict(done.parity)]
    return "\n".join([*lines, f"output   {done.output} (record: {done.record.name})"])


def _differences(parity: Parity) -> list[str]:
    from tabulate import tabulate

    rows = [(stage, f"{d.max_abs:.2e}", f"{d.relative:.2e}") for stage, d in parity.stages.items()]
    lines = ["", tabulate(rows, headers=("stage", "max abs difference", "relative"), disable_numparse=True), ""]
    if silent := len(parity.silent):
        lines.append(f"note     {silent} blocks have a last BN gamma of 0: of these only the tensors were compared")
    return lines


def _verdict(parity: Parity) -> str:
    from transfer.weights.models.parity import BOUND

    return f"verified in {parity.title}: every tensor equal, maps within a relative {BOUND:g}"
