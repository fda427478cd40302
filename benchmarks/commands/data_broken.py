"""`pixbench data broken`: find the broken images before a run of days does."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace

from benchmarks.commands import finite
from benchmarks.commands.data_index import add_root, listed

DESCRIPTION = """\
Decode every pre-training image as training does, with all cores, and list those that are broken:

    pixbench data broken --root /data/photos > broken.txt

Each line is the name of an image, a tab, and what is wrong with it, as in skipped.txt of a run. Nothing is changed.
A run skips broken images (--data.on_error skip), but no more of them than --data.max_skipped. The exit code is 1 if
there are broken images.
"""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to those of `pixbench data`."""
    parser = commands.add_parser(
        "broken",
        help="decode all pre-training images, and list the broken ones",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_root(parser, "; or an index of them")
    parser.add_argument(
        "--pixel_range",
        type=finite,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="range of the values of images with more than 8 bits, as data.pixel_range of the run (default: found in a sample)",
    )
    parser.add_argument("--workers", type=int, metavar="W", help="number of processes (default: one per core)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list of the broken images; return 1 if there are any, else 0."""
    from tqdm import tqdm

    from pixbench.errors import UserError
    from pixbench.progress import counting
    from pretrain.data.broken import broken_line, reasons
    from pretrain.data.pixel_range import find_range
    from pretrain.settings import DataConfig

    workers = len(os.sched_getaffinity(0)) if args.workers is None else args.workers
    if workers < 1:
        raise UserError(f"--workers {workers} is not possible; choose 1 or more")
    source, start, count = listed(args), time.perf_counter(), 0
    for note in source.index.notes:
        print(f"warning: {note}", file=sys.stderr)
    if args.pixel_range:
        source = replace(source, pixel_range=DataConfig(pixel_range=tuple(args.pixel_range)).pixel_range)
    elif wide := find_range(source):
        source = replace(source, pixel_range=(wide.low, wide.high))
    total = len(source)
    with counting(total, "decoded", "images") as decoded:
        for index, reason in enumerate(reasons(source, "opencv", workers)):
            decoded(1)
            if reason:
                count += 1
                tqdm.write(broken_line(source.names[index], reason))  # above the bar
                sys.stdout.flush()
    print(
        f"{args.root}: {count or 'none'} of {total} images broken, found in {time.perf_counter() - start:.0f} s"
        + f"; a run skips up to {DataConfig().most_skipped(total)} of them (data.max_skipped)" * bool(count),
        file=sys.stderr,
    )
    return 1 if count else 0
