"""`pixbench data mini`, `check` and `prepare`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from pixbench.errors import UserError


def register(subparsers: argparse._SubParsersAction) -> None:
    data = subparsers.add_parser("data", help="make the mini world, check and prepare data sets")
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
    check.add_argument(
        "--checksums", action="store_true", help="read annotation files and archives whole and compare their checksums"
    )
    check.set_defaults(run=run_check)

    prepare = commands.add_parser("prepare", help="make what the downloads of a data set do not hold")
    prepare.add_argument(
        "name",
        help="cityscapes (labelTrainIds), VOC2012aug (list and masks, from SBD) or coco (lists of the 1 %% and 10 %% shares)",
    )
    prepare.add_argument("--root", type=Path, required=True, metavar="DIR", help="the folder that holds VOC2012, …")
    prepare.add_argument("--write", action="store_true", help="do it; otherwise only what would be written is said")
    prepare.set_defaults(run=run_prepare)


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
    from transfer.datasets.check import SETS, check_dataset

    failed = False
    for name in args.only or SETS:
        problems = check_dataset(args.root, name, thorough=True, checksums=args.checksums)
        failed = failed or bool(problems)
        print(f"{name:<20} " + ("ok" if not problems else problems[0]))
        for problem in problems[1:]:
            print(f"{'':<20} {problem}")
    return int(failed)


def run_prepare(args: argparse.Namespace) -> None:
    from transfer.datasets.prepare import prepare

    made, there = prepare(args.root, args.name, args.write)
    what = f"{len(made)} files ({made[0]} …)" if made else "nothing"
    said = "written" if args.write else "would be written; do it with --write" if made else "is missing"
    print(f"{args.name}: {what} {said}, {len(there)} were there")
