"""`pixbench transfer`: fine-tune a backbone under a published protocol and evaluate it."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.commands import CLASSES, DATA_ROOT, PIXBENCH, finite
from pixbench.errors import UserError
from pixbench.patience import PROCESS_TIMEOUT_H, check_timeout
from transfer.datasets.classes import read_classes
from transfer.job import CACHE_GB, FREEZES, TransferJob
from transfer.protocols import SCALES, Protocol, find_protocol


def register(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser("transfer", help="fine-tune and evaluate a backbone under a published protocol")
    parser.add_argument("protocol", help="name of a protocol; `pixbench protocols` lists them")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="backbone to start from: any file that `pixbench convert` reads or writes",
    )
    start.add_argument(
        "--init",
        choices=["random", "supervised"],
        help="start from a random backbone, or from torchvision's supervised ResNet-50",
    )
    parser.add_argument(
        "--like", type=Path, metavar="FILE", help="backbone whose network and pixels --init random takes"
    )
    parser.add_argument("--data-root", type=Path, required=True, metavar="DIR", help=DATA_ROOT)
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="paper",
        help="paper: as published; mini: small enough for a CPU (default: paper)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of heads, data order and random backbone (default: 0)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="run folder; an interrupted run is continued"
    )
    parser.add_argument("--freeze", choices=FREEZES, default="none", help="part that is not trained (default: none)")
    batch = parser.add_mutually_exclusive_group()
    batch.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="images per batch; learning rate, warm-up, milestones, iterations and periods are scaled",
    )
    batch.add_argument(
        "--accumulate", type=int, default=1, metavar="N", help="compute each batch in N parts, to save memory"
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help=CLASSES)
    parser.add_argument(
        "--no-check", action="store_true", help="do not check data again that has not changed since it was checked"
    )
    add_cache_options(parser)
    parser.add_argument("--label", help="name of the table row this run belongs to")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a config key of the framework; may be repeated",
    )
    parser.add_argument(
        "--gpus",
        type=int,
        default=1,
        metavar="N",
        help="number of processes with one GPU each, started by torchrun (default: 1)",
    )
    parser.add_argument(
        "--process-timeout",
        type=finite,
        default=PROCESS_TIMEOUT_H,
        metavar="HOURS",
        help=f"how long a process waits for the others, such as for the one that evaluates (default: {PROCESS_TIMEOUT_H:g})",
    )
    parser.set_defaults(run=transfer, continues=lambda args: True)


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of frozen protocols."""
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder that keeps the features of frozen protocols for other runs"
    )
    parser.add_argument(
        "--cache-gb",
        type=finite,
        default=CACHE_GB,
        metavar="GB",
        help=f"most that the features may take (default: {CACHE_GB:g})",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that read the pictures of a frozen protocol; 0: none besides this one (default: one per core)",
    )


def transfer(args: argparse.Namespace) -> None:
    """Run the job and print its metrics; for several GPUs, first restart the command under torchrun."""
    job = job_of(args)
    if args.init == "supervised":
        from transfer.initial_weights import supervised_file

        job = replace(job, weights=supervised_file())
    if args.gpus > 1 and "WORLD_SIZE" not in os.environ:
        _check_gpus(args.gpus)
        command = torchrun_command(args.gpus, sys.argv[1:])
        os.execv(command[0], command)
    from transfer.run import run_transfer

    result = run_transfer(job, args.label, trust_data=args.no_check)
    if int(os.environ.get("RANK", 0)) == 0:
        numbers = "  ".join(f"{name} {job.protocol.written(name, value)}" for name, value in result["metrics"].items())
        print(f"{job.protocol.name}: {numbers}  ({result['wall_time_s']:.0f} s; {args.out / 'result.json'})")


def job_of(args: argparse.Namespace) -> TransferJob:
    """Return the job that the arguments describe. It has no weights if they come from ``--init``.

    Raises:
        UserError: An argument is wrong.
    """
    protocol = find_protocol(args.protocol)
    _refuse_unused(args, protocol)
    overrides = parse_settings(args.set)
    for option in ("accumulate", "gpus"):
        if (number := getattr(args, option)) < 1:
            raise UserError(f"--{option} {number} is not possible; choose 1 or more")
    check_timeout(args.process_timeout, "--process-timeout")
    check_seed(args.seed)
    places = args.data_root.resolve(), args.out.resolve(), args.weights
    classes = read_classes(args.classes) if args.classes else None
    return TransferJob(
        protocol,
        *places,
        args.scale,
        args.seed,
        overrides,
        args.freeze,
        args.batch,
        args.accumulate,
        classes,
        process_timeout=args.process_timeout,
        like=like_of(args),
        cache=args.cache and args.cache.resolve(),
        cache_gb=args.cache_gb,
        workers=args.workers,
    )


def _refuse_unused(args: argparse.Namespace, protocol: Protocol) -> None:
    """Raise UserError if there are options of frozen protocols that ``protocol`` does not use."""
    unused = ["like"] if protocol.kind != "frozen" else []
    unused += ["cache", "workers"] if protocol.framework != "frozen" else []
    for name in unused:
        if getattr(args, name) is not None:
            raise UserError(
                f"--{name} has no effect on {protocol.name}; leave it out (`pixbench protocols` says which are frozen)"
            )


def check_seed(seed: int) -> None:
    """Raise UserError if ``seed`` is not possible."""
    if not 0 <= seed < 1 << 32:
        raise UserError(f"--seed {seed} is not possible; choose a number from 0 to {(1 << 32) - 1}")


def like_of(args: argparse.Namespace) -> Path | None:
    """Return the backbone that a random one is to be like; raise UserError if an option of frozen protocols is wrong."""
    if args.like and args.init != "random":
        raise UserError(f"--like {args.like} is for --init random; leave it out")
    if args.cache_gb <= 0 or (args.workers or 0) < 0:
        raise UserError("--cache-gb must be above 0 and --workers not negative")
    like: Path | None = args.like
    return like


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Convert ``["A.B=1", "C=[2, 3]"]`` to ``{"A.B": 1, "C": [2, 3]}``; values are YAML, or numbers such as 1e-3."""
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
            found[key] = float(value) if isinstance(value, str) else value  # YAML reads 1e-3 as a string
        except ValueError:
            found[key] = value
    return found


def torchrun_command(gpus: int, words: list[str]) -> list[str]:
    """Return the command that starts the same command line once per GPU of this machine."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}")
    return [*launcher, *PIXBENCH[1:], *words]


def _check_gpus(wanted: int) -> None:
    import torch

    if (found := torch.cuda.device_count()) < wanted:
        raise UserError(
            f"--gpus {wanted}: this machine shows {found} CUDA devices; leave --gpus out to run on one device or the CPU"
        )
