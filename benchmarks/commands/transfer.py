"""`pixbench transfer`: fine-tune a backbone under a published protocol and evaluate it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.commands import PIXBENCH
from pixbench.errors import UserError
from transfer.job import FREEZES, TransferJob
from transfer.protocols import SCALES, find_protocol


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    parser = subparsers.add_parser("transfer", help="fine-tune and evaluate a backbone under a published protocol")
    parser.add_argument("protocol", help="one of those `pixbench protocols` lists")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="backbone to start from: any file `pixbench convert` reads or writes",
    )
    start.add_argument(
        "--init",
        choices=["random", "supervised"],
        help="a random backbone, or torchvision's trained on ImageNet's labels",
    )
    parser.add_argument(
        "--data-root", type=Path, required=True, metavar="DIR", help="folder with VOC2007, VOC2012, coco, cityscapes"
    )
    parser.add_argument(
        "--scale", choices=SCALES, default="paper", help="as published, or small enough for a CPU (default: paper)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of heads, data order and the random backbone (default: 0)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder of the run; one that was killed goes on"
    )
    parser.add_argument("--freeze", choices=FREEZES, default="none", help="what is not trained (default: none)")
    batch = parser.add_mutually_exclusive_group()
    batch.add_argument(
        "--batch", type=int, metavar="N", help="images a batch; lr, warm-up, steps, iterations and periods follow"
    )
    batch.add_argument(
        "--accumulate", type=int, default=1, metavar="N", help="compute each batch in N parts, for want of memory"
    )
    parser.add_argument("--label", help="name of the table row this run belongs to")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a config key of the framework; may be repeated"
    )
    parser.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="processes with one GPU each, through torchrun (default: 1)"
    )
    parser.set_defaults(run=transfer)


def transfer(args: argparse.Namespace) -> None:
    protocol = find_protocol(args.protocol)
    overrides = parse_settings(args.set)
    for option in ("accumulate", "gpus"):
        if (number := getattr(args, option)) < 1:
            raise UserError(f"--{option} {number} is not possible; choose 1 or more")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed} is negative; choose 0 or more")
    weights = _start(args)
    if args.gpus > 1 and "WORLD_SIZE" not in os.environ:
        _check_gpus(args.gpus)
        command = torchrun_command(args.gpus, sys.argv[1:])
        os.execv(command[0], command)
    from transfer.run import run_transfer

    places = args.data_root.resolve(), args.out.resolve(), weights
    job = TransferJob(protocol, *places, args.scale, args.seed, overrides, args.freeze, args.batch, args.accumulate)
    result = run_transfer(job, args.label)
    if int(os.environ.get("RANK", 0)) == 0:
        numbers = "  ".join(
            f"{name} {float('nan') if value is None else value:.2f}" for name, value in result["metrics"].items()
        )
        print(f"{protocol.name}: {numbers}  ({result['wall_time_s']:.0f} s; {args.out / 'result.json'})")


def _start(args: argparse.Namespace) -> Path | None:
    """The file of weights to start from; None for a random backbone."""
    if args.init != "supervised":
        return args.weights
    from transfer.initial_weights import supervised_file

    return supervised_file()


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``["A.B=1", "C=[2, 3]"]`` -> ``{"A.B": 1, "C": [2, 3]}``; values are YAML, and numbers may be written 1e-3."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise UserError(f"--set {pair!r} is not KEY=VALUE, e.g. --set SOLVER.BASE_LR=0.01")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {key}: {text!r} cannot be read as a YAML value") from error
        try:
            found[key] = float(value) if isinstance(value, str) else value  # YAML takes 1e-3 for a word
        except ValueError:
            found[key] = value
    return found


def torchrun_command(gpus: int, words: list[str]) -> list[str]:
    """The same command line, once per GPU on this machine."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}")
    return [*launcher, *PIXBENCH[1:], *words]


def _check_gpus(wanted: int) -> None:
    import torch

    if (found := torch.cuda.device_count()) < wanted:
        raise UserError(
            f"--gpus {wanted}: this machine shows {found} CUDA devices; leave --gpus out to run on one device or the CPU"
        )
