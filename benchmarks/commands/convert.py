"""`pixbench convert`: turn a checkpoint into a file for a framework and prove that it arrived."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pixbench.errors import UserError

if TYPE_CHECKING:
    from transfer.weights.conversion import Conversion

FRAMEWORKS_OF = {
    "detectron2": ("detectron2_fpn", "detectron2_c4", "detectron2_vitdet"),
    "mmseg": ("mmseg",),
    "mmdet": ("mmseg",),
    "mmpretrain": ("mmpretrain",),
    "torchvision": ("torchvision",),
    "timm": ("timm",),
    "huggingface": ("huggingface",),
}
"""Value of --to -> keys of `transfer.weights.frameworks.FRAMEWORKS`; the first is the default."""


def register(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("convert", help="convert a checkpoint for a framework and prove that it arrived")
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="any file of docs/weights.md")
    parser.add_argument("--to", required=True, choices=tuple(FRAMEWORKS_OF), help="framework to write for")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help=".pkl for detectron2, else .pth; or .safetensors",
    )
    parser.add_argument(
        "--detector", choices=("fpn", "c4", "vitdet"), help="Detectron2's kind of detector (default: fpn)"
    )
    parser.add_argument("--branch", choices=("student", "momentum_encoder"), help="backbone to take (default: student)")
    parser.add_argument("--from", dest="format_name", metavar="FORMAT", help="what CKPT is, where its keys do not tell")
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the file in the framework and compare (default)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from transfer.weights.conversion import convert

    framework = f"{args.to}_{args.detector}" if args.detector else FRAMEWORKS_OF[args.to][0]
    if framework not in FRAMEWORKS_OF[args.to]:
        raise UserError(f"--detector {args.detector} means nothing to {args.to}; leave it out")
    print(report(convert(args.checkpoint, args.output, framework, args.branch, args.verify, args.format_name)))


def report(done: Conversion) -> str:
    """What the command prints."""
    from transfer.weights.file_format import formats

    reading = done.reading
    kind = formats()[reading.format]
    branch = f", {reading.branch} branch" if len(kind.branches) > 1 else ""
    lines = [
        f"read     {reading.backbone.source}: {kind.title}{branch}",
        f"backbone    {reading.backbone.spec.title}",
        f"keys     {reading.counts}" + (f"; beside them {', '.join(reading.beside)}" if reading.beside else ""),
        f"written  {done.written}",
    ]
    if done.parity is None:
        lines.append("verified no, left out on request")
    else:
        lines += [*done.parity.table(), done.parity.verdict]
    return "\n".join([*lines, f"output   {done.output} (record: {done.record.name})"])
