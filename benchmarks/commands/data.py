"""`pixbench data`: generate or compose a mini world, check data sets, prepare them, list images, find broken ones."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.commands import CLASSES, DATA_ROOT, data_broken, data_index
from pixbench.errors import UserError

if TYPE_CHECKING:
    from benchmarks.miniworld.generate import World


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    data = subparsers.add_parser(
        "data", help="generate the mini world, check and prepare data sets, list and check images"
    )
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    mini = commands.add_parser(
        "mini", help="generate small data sets in the layouts of ImageNet, VOC, COCO, LVIS, Cityscapes and ADE20K"
    )
    mini.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder to create")
    mini.add_argument(
        "--world",
        choices=("everyday", "shapes"),
        default="everyday",
        help="how the scenes are drawn: everyday objects in places, or shapes with patterns (default: everyday)",
    )
    _add_size(mini)
    mini.set_defaults(run=run_mini)

    compose = commands.add_parser(
        "compose", help="the same layouts with your own cut-outs of objects on your own pictures"
    )
    compose.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder to create")
    compose.add_argument(
        "--cutouts",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with a folder for each class, of pictures that are transparent around one object (e.g. PNG)",
    )
    compose.add_argument(
        "--backgrounds", type=Path, required=True, metavar="DIR", help="folder of pictures to put the objects on"
    )
    _add_size(compose)
    compose.set_defaults(run=run_compose)

    check = commands.add_parser("check", help="check the data sets below a folder: files, and every annotation")
    check.add_argument("--root", type=Path, required=True, metavar="DIR", help=DATA_ROOT)
    which = check.add_mutually_exclusive_group()
    which.add_argument("--only", nargs="+", metavar="NAME", help="data sets to check (default: all)")
    which.add_argument(
        "--protocol", metavar="NAME", help="check what this protocol reads; `pixbench protocols` lists them"
    )
    check.add_argument("--classes", type=Path, metavar="FILE", help=CLASSES)
    check.add_argument(
        "--checksums", action="store_true", help="also compare the checksums of annotation files and archives"
    )
    check.set_defaults(run=run_check)

    prepare = commands.add_parser("prepare", help="make the files that the downloads of a data set do not contain")
    prepare.add_argument(
        "name",
        help="cityscapes (labelTrainIds), VOC2012aug (list and masks from SBD) or coco (1 %% and 10 %% subsets)",
    )
    prepare.add_argument("--root", type=Path, required=True, metavar="DIR", help=DATA_ROOT)
    prepare.add_argument(
        "--write", action="store_true", help="write the files (default: only report what would be written)"
    )
    prepare.set_defaults(run=run_prepare, continues=lambda args: args.write)
    data_index.register(commands)
    data_broken.register(commands)


def _add_size(parser: argparse.ArgumentParser) -> None:
    """Add the options of all commands that draw a world."""
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed; the same seed gives the same bytes (default: 0)"
    )
    parser.add_argument(
        "--images",
        type=int,
        default=3000,
        metavar="N",
        help="number of pre-training images (default: 3000); the other splits scale with it",
    )
    parser.add_argument("--workers", type=int, metavar="W", help="number of processes (default: one per core)")


def run_mini(args: argparse.Namespace) -> int:
    """Generate the mini world unless it exists already."""
    with needed():
        from benchmarks.miniworld.generate import World
    return make(World(args.seed, args.images, args.world), args)


def run_compose(args: argparse.Namespace) -> int:
    """Compose a world of the user's pictures unless it exists already."""
    with needed():
        from benchmarks.miniworld.compose import PhotoWorld
    world = PhotoWorld(args.seed, args.images, cutouts=args.cutouts, backgrounds=args.backgrounds)
    world.check(args.root)
    return make(world, args)


@contextmanager
def needed() -> Iterator[None]:
    """Say which package is missing if an import inside fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"the mini world needs the package {error.name}: run scripts/install.sh (make install)"
        ) from None


def make(world: World, args: argparse.Namespace) -> int:
    """Generate ``world`` unless it exists already."""
    from benchmarks.miniworld.generate import generate

    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    if workers < 1:
        raise UserError(f"--workers {workers} is not possible; choose 1 or more")
    start = time.perf_counter()
    made = generate(args.root, world, workers)
    sizes = ", ".join(f"{name} {'+'.join(map(str, world.sizes(name).values()))}" for name in world.writers())
    how = f"made in {time.perf_counter() - start:.0f} s" if made else "already there"
    print(f"mini world {how}: {args.root} ({world.name}, seed {world.seed}; scenes: {sizes})")
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Print the problems of each data set, and how unusual data is read; return 2 if there are problems, else 0."""
    from transfer.datasets.check import Needs, check_dataset, check_own_classes, needs_of
    from transfer.datasets.classes import read_classes
    from transfer.datasets.layout import SETS
    from transfer.protocols import find_protocol

    classes = read_classes(args.classes) if args.classes else None
    needs, names = Needs(classes=classes), args.only or SETS
    if args.protocol:
        protocol = find_protocol(args.protocol)
        if classes:
            check_own_classes(protocol)
        needs, names = needs_of(protocol, classes), protocol.datasets
    elif classes and not args.only:
        raise UserError("--classes needs --protocol NAME or --only NAME: it is for one kind of data set")
    failed = False
    for name in names:
        found = check_dataset(args.root, name, needs, thorough=classes is None, checksums=args.checksums)
        failed = failed or bool(found.problems)
        lines = [*(found.problems or ["ok"]), *(f"note: {line}" for line in found.notes)]
        print(f"{name:<20} {lines[0]}")
        for line in lines[1:]:
            print(f"{'':<20} {line}")
    if failed and not classes:
        print("Is it data of your own? Then give its classes: --protocol NAME --classes FILE (docs/data.md)")
    return 2 if failed else 0


def run_prepare(args: argparse.Namespace) -> None:
    """Prepare the data set and print how many files were written or would be."""
    from transfer.datasets.prepare import prepare

    made, there = prepare(args.root, args.name, args.write)
    what = f"{len(made)} files ({made[0]} …)" if made else "nothing"
    said = "written" if args.write else "would be written; do it with --write" if made else "is missing"
    print(f"{args.name}: {what} {said}, {len(there)} were there")
