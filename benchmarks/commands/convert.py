"""`pixbench convert`: convert a checkpoint to the file of a framework and verify the result."""

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
"""Value of --to -> keys of `transfer.weights.frameworks.FRAMEWORKS`; the first key is the default."""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("convert", help="convert a checkpoint to the file of a framework and verify it")
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="checkpoint in any format of docs/weights.md")
    parser.add_argument("--to", required=True, choices=tuple(FRAMEWORKS_OF), help="framework to convert to")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="output file: .pkl for detectron2, else .pth; or .safetensors",
    )
    parser.add_argument(
        "--detector", choices=("fpn", "c4", "vitdet"), help="type of detector in Detectron2 (default: fpn)"
    )
    parser.add_argument(
        "--branch", choices=("student", "momentum_encoder"), help="which backbone to convert (default: student)"
    )
    parser.add_argument(
        "--from", dest="format_name", metavar="FORMAT", help="format of CKPT, if its keys do not show it"
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the output in the framework and compare the results (default)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Convert the checkpoint and print the report."""
    from transfer.weights.conversion import convert

    framework = f"{args.to}_{args.detector}" if args.detector else FRAMEWORKS_OF[args.to][0]
    if framework not in FRAMEWORKS_OF[args.to]:
        raise UserError(f"--detector {args.detector} does not apply to {args.to}; leave it out")
    print(report(convert(args.checkpoint, args.output, framework, args.branch, args.verify, args.format_name)))


def report(done: Conversion) -> str:
    """Return the text that the command prints."""
    from transfer.weights.file_format import formats

    reading = done.reading
    file_format = formats()[reading.format]
    branch = f", {reading.branch} branch" if len(file_format.branches) > 1 else ""
    lines = [
        f"read     {reading.backbone.source}: {file_format.title}{branch}",
        f"backbone {reading.backbone.spec.title}",
        f"keys     {reading.counts}" + (f"; the file also holds {', '.join(reading.beside)}" if reading.beside else ""),
        f"written  {done.written}",
    ]
    if done.parity is None:
        lines.append("verified no (--no-verify)")
    else:
        lines += [*done.parity.table(), done.parity.verdict]
    return "\n".join([*lines, f"output   {done.output} (record: {done.record.name})"])
