"""`pixbench convert`: convert a checkpoint to the file of a framework and verify the result."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixbench.errors import UserError
from transfer.weights.frameworks import FRAMEWORKS, Framework

if TYPE_CHECKING:
    from transfer.weights.conversion import Conversion
    from transfer.weights.read_file import Reading


SOURCE = "checkpoint of any format in docs/weights.md: a file, a folder, hf:org/name or timm:name"
"""Help of an argument that names weights."""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("convert", help="convert a checkpoint to the file of a framework and verify it")
    parser.add_argument("checkpoint", metavar="CKPT", help=SOURCE)
    words = dict.fromkeys(word for rules in FRAMEWORKS.values() for word in rules.words)
    parser.add_argument("--to", required=True, choices=tuple(words), help="framework to convert to")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="output file: .pkl for detectron2, .safetensors for huggingface, else .pth; or .safetensors for all",
    )
    detectors = dict.fromkeys(rules.detector for rules in FRAMEWORKS.values() if rules.detector)
    parser.add_argument(
        "--detector",
        choices=tuple(detectors),
        help=f"type of detector in Detectron2 (default: {next(iter(detectors))})",
    )
    add_choice(parser, "CKPT")
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the output in the framework and compare the results (default)",
    )
    parser.set_defaults(run=run)


def add_choice(parser: argparse.ArgumentParser, file: str, branch: bool = True) -> None:
    """Add the options that choose a backbone in a file."""
    if branch:
        parser.add_argument(
            "--branch",
            choices=("student", "momentum_encoder", "ema"),
            help="which backbone to take: the trained one, its momentum encoder, or the moving average of all weights that some "
            "training programs keep (default: the one that the authors of the format evaluate, nearly always the student)",
        )
    parser.add_argument(
        "--from",
        dest="format_name",
        metavar="FORMAT",
        help=f"format of {file}, if its keys do not show it; or timm:NAME for a network of timm, such as "
        "timm:vit_small_patch14_dinov2, with options in braces: 'timm:NAME {img_size: 64}'",
    )
    parser.add_argument(
        "--prefix",
        help="take the backbone whose names begin with PREFIX (module.encoder.), in a file of no known format; other keys are "
        "left out and named",
    )
    parser.add_argument(
        "--container", metavar="KEY", help=f"entry of {file} that holds the weights (model_state_dict), for --prefix"
    )


def choice_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the options of `add_choice` choose, as arguments of `transfer.weights.read`."""
    return {name: getattr(args, name) for name in ("branch", "format_name", "prefix", "container")}


def _framework(args: argparse.Namespace) -> Framework:
    named = [rules for rules in FRAMEWORKS.values() if args.to in rules.words]
    found = [rules for rules in named if args.detector in (None, rules.detector)]
    if not found:
        raise UserError(f"--detector {args.detector} does not apply to {args.to}; leave it out")
    return found[0]


def run(args: argparse.Namespace) -> None:
    """Convert the checkpoint and print the report."""
    framework = _framework(args)
    from transfer.weights.conversion import convert

    print(report(convert(args.checkpoint, args.output, framework.name, check_forward=args.verify, **choice_of(args))))


def report(done: Conversion) -> str:
    """Return the text that the command prints."""
    lines = [*_read(done.reading), *(f"changed  {line}" for line in done.changes), f"written  {done.written}"]
    if done.parity is None:
        lines.append("verified no (--no-verify)")
    else:
        lines += [*done.parity.table(), done.parity.verdict]
    usage = [f"    {line}" for line in done.usage.splitlines()]
    return "\n".join([*lines, f"output   {done.output} (record: {done.record.name})", "to use it:", *usage])


def _read(reading: Reading) -> list[str]:
    from transfer.weights.contents import grouped

    backbone = reading.backbone
    branch = f", {reading.branch} branch" if len(reading.layout.branches) > 1 or reading.branch == "ema" else ""
    strides = (
        ""
        if backbone.spec.variant in ("ViT", "named")
        else f"; strides in the {'1×1' if _strided_1x1(reading) else '3×3'}"
    )
    lines = [
        f"read     {backbone.source}",
        f"names    as in: {reading.layout.title}{branch}",
        f"backbone {backbone.spec.title}",
        f"takes    {backbone.pixels}{strides}",
        f"keys     {reading.counts}",
    ]
    lines += [f"note     {note}" for note in reading.notes]
    lines += [f"left out {reason}: {grouped(keys)}" for reason, keys in reading.dropped.items()]
    if reading.averages and reading.branch == "ema":
        lines.append(f"average  {', '.join(reading.averages)} was taken in the place of the weights")
    elif reading.averages:
        lines.append(f"average  {', '.join(reading.averages)} was not taken; --branch ema takes it")
    if reading.beside:
        lines.append(f"beside   {', '.join(reading.beside)}")
    if reading.asked:
        more = f" and {len(reading.asked) - 4} more" if len(reading.asked) > 4 else ""
        lines.append(f"objects  {', '.join(reading.asked[:4])}{more} were read as plain data, never run")
    return lines


def _strided_1x1(reading: Reading) -> bool:
    return bool(getattr(reading.backbone.spec, "stride_in_1x1", False))
