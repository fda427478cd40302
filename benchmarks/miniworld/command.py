"""`pixbench data mini` and `pixbench data check`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from pretrain.errors import UserError


def register(subparsers: argparse._SubParsersAction) -> None:
    data = subparsers.add_parser("data", help="make the mini world, check data sets")
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    mini = commands.add_parser("mini", help="draw a small world in the layouts of ImageNet, VOC, COCO and Cityscapes")
    mini.add_argument("--root", type=Path, required=True, metavar="DIR", help="the folder to make")
    mini.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    mini.add_argument(
        "--images", type=int, metavar="N", help="pre-training images (default 3000); all other splits scale with it"
    )
    mini.add_argument("--workers", type=int, metavar="W", help="processes that draw (default: one per core)")
    mini.set_defaults(run=run_mini)

    check = commands.add_parser("check", help="say what is missing or broken in the data sets below a folder")
    check.add_argument("--root", type=Path, required=True, metavar="DIR", help="the folder that holds VOC2007, coco, …")
    check.add_argument("--only", nargs="+", metavar="NAME", help="data sets to check (default: all)")
    check.set_defaults(run=run_check)


def run_mini(args: argparse.Namespace) -> int:
    try:
        from benchmarks.miniworld.generate import IMAGES, WRITERS, World, generate
    except ModuleNotFoundError as error:
        raise UserError(
            f"the mini world needs the package {error.name}: run scripts/install.sh (make install)"
        ) from None

    world = World(args.seed, IMAGES if args.images is None else args.images)
    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    if workers < 1:
        raise UserError(f"--workers {workers} leaves nobody to draw; choose at least 1")
    start = time.perf_counter()
    made = generate(args.root, world, workers)
    sizes = ", ".join(f"{name} {'+'.join(map(str, world.sizes(name).values()))}" for name in WRITERS)
    how = f"made in {time.perf_counter() - start:.0f} s" if made else "already there"
    print(f"mini world {how}: {args.root} (seed {world.seed}; scenes: {sizes})")
    return 0


def run_check(args: argparse.Namespace) -> int:
    from transfer.data import CHECKS, check_dataset

    failed = False
    for name in args.only or CHECKS:
        problems = check_dataset(args.root, name)
        failed = failed or bool(problems)
        print(f"{name:<11} " + ("ok" if not problems else "; ".join(problems[:1])))
        for problem in problems[1:]:
            print(f"{'':<11} {problem}")
    return int(failed)
