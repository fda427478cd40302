"""`pixbench data index`: write the list of the images of a source to a file, so that runs need not search for them."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pixbench.errors import UserError
from pixbench.files import atomic_path

if TYPE_CHECKING:
    from pretrain.data.sources import Source

DESCRIPTION = """\
Write an index of pre-training images: the name and label of each image and where it is. Give the file to
pre-training instead of the images:

    pixbench data index --root /data/imagenet --out imagenet.index
    pixbench pretrain --data.root imagenet.index ...

A run then starts at once, and all its processes on a machine share the index in memory. That pays for millions of
images, for folders on a network and for tar shards: without an index, each start of a run looks through all of them.
The index does not hold the images, which stay where they are. Make it again when images have come or gone. A run that
was started without an index can go on with one.
"""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command to those of `pixbench data`."""
    index = commands.add_parser(
        "index",
        help="write an index of pre-training images, with which runs start at once",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_root(index)
    index.add_argument("--out", type=Path, required=True, metavar="FILE.index", help="file to write")
    index.set_defaults(run=run)


def add_root(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add the options that say which images are meant; ``more`` is what else they may be."""
    parser.add_argument(
        "--root",
        required=True,
        metavar="ROOT",
        help="the images, as in --data.root of pixbench pretrain: a folder, a zip, tar shards (for example 'a-{000..127}.tar' in "
        f"quotes, or URLs), a list (.txt, .csv, .tsv) or an annotation file of COCO's format{more}",
    )
    parser.add_argument(
        "--layout",
        default="auto",
        help="class_folder, flat (a folder or zip without labels), list, webdataset or coco (default: what ROOT looks like)",
    )
    parser.add_argument(
        "--folder",
        default="",
        metavar="DIR",
        help="folder to which the paths in a list or annotation file are relative (default: the folder of the list)",
    )


def listed(args: argparse.Namespace) -> Source:
    """List the images that the options of `add_root` name, under absolute paths."""
    from pretrain.data.sources import open_source
    from pretrain.data.sources.storage import is_url

    root = args.root if is_url(args.root) or not args.root else os.path.abspath(os.path.expanduser(args.root))
    folder = os.path.abspath(os.path.expanduser(args.folder)) if args.folder else ""
    return open_source(root, args.layout, folder)


def run(args: argparse.Namespace) -> None:
    """Write the index and print what is in it."""
    from pretrain.data.sources import INDEX_SUFFIX, is_index

    if args.out.suffix != INDEX_SUFFIX:
        raise UserError(f"--out {args.out} must end with {INDEX_SUFFIX}, by which pre-training knows an index")
    if is_index(args.root):
        raise UserError(f"--root {args.root} is an index already; give the images themselves")
    start = time.perf_counter()
    index = listed(args).index
    with atomic_path(args.out) as part:
        replace(index, notes=()).write(part)  # they are said now, and may not be true later
    labelled, count = int((index.labels >= 0).sum()), len(index)
    classes = f", {len(index.classes)} class{'es' * (len(index.classes) > 1)}" if index.classes else ""
    what = f"{count} image{'s' * (count > 1)}, {labelled} with a label{classes} (layout {index.layout})"
    print(f"{args.out}: {what}, {args.out.stat().st_size / 1e6:.1f} MB, made in {time.perf_counter() - start:.0f} s")
    for name in index.empty[:5]:
        print(f"note: the class folder {name} holds no images")
    for note in index.notes:
        print(f"warning: {note}")
