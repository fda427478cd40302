"""Measure the time and memory of the check of a data set as large as COCO.

    python -m benchmarks.speed.check [--images 118287] [--annotations 860001] [--rounds 1]

The folder has that many pictures, which are few files under many names, and an annotation file of about 450 MB whose polygons
are random. The first row is a mini data set of the same layout: what the command itself takes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.commands import PIXBENCH
from benchmarks.speed import options
from benchmarks.speed.weights import measure
from pixbench.file_versions import MINI_WORLD_FILE

WIDTH, HEIGHT = 640, 480
LINKS = 10_000
"""Names of one file; file systems allow some ten thousands."""
POINTS = (8, 12, 20, 30, 44)


def make(home: Path, images: int, annotations: int) -> None:
    """Write a data set in COCO's layout with so many images and annotations to train on, and small parts to test on."""
    from transfer.datasets.classes import published_classes

    classes = published_classes("coco.json")
    categories = [{"id": id_, "name": name} for id_, name in zip(classes.ids, classes.names, strict=True)]
    (home / "annotations").mkdir(parents=True)
    (home.parent / MINI_WORLD_FILE).touch()  # other counts and sizes than the published ones are fine
    for split, pictures, things in (("train2017", images, annotations), ("val2017", 100, 500)):
        _pictures(home / split, pictures)
        head = json.dumps({"images": list(map(_image, range(pictures))), "categories": categories})[:-1]
        with (home / f"annotations/instances_{split}.json").open("w", encoding="utf-8") as stream:
            stream.write(f'{head}, "annotations": [')
            for number, entry in enumerate(_annotations(pictures, things, classes.ids)):
                stream.write((", " if number else "") + json.dumps(entry))
            stream.write("]}")


def _pictures(folder: Path, number: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for i in range(number):
        if i % LINKS == 0:
            first = folder / f"{i:012}.jpg"
            Image.fromarray(noise).save(first)
        else:
            os.link(first, folder / f"{i:012}.jpg")


def _image(number: int) -> dict[str, Any]:
    name = f"{number:012}.jpg"
    url = f"http://images.cocodataset.org/train2017/{name}"
    return {"id": number, "file_name": name, "coco_url": url, "width": WIDTH, "height": HEIGHT, "license": 3}


def _annotations(images: int, number: int, categories: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    for k in range(number):
        x, y, width, height = (round(rng.uniform(*ends), 2) for ends in ((0, 400), (0, 300), (5, 200), (5, 150)))
        polygon = [x, y, x + width, y + height]  # two corners, so that the box fits
        for _ in range(rng.choice(POINTS)):
            polygon += [x + rng.random() * width, y + rng.random() * height]
        yield {
            **{"id": k + 1, "image_id": k % images, "category_id": categories[k % len(categories)], "iscrowd": 0},
            **{"bbox": [x, y, width, height], "area": round(width * height / 2, 4)},
            "segmentation": [[round(value, 2) for value in polygon]],
        }


def main() -> None:
    """Write two data sets, check them and print the table."""
    parser = options.parser("check", __doc__)
    parser.add_argument(
        "--images", type=options.positive, default=118_287, metavar="N", help="default: %(default)s, as in COCO"
    )
    parser.add_argument(
        "--annotations", type=options.positive, default=860_001, metavar="N", help="default: %(default)s, as in COCO"
    )
    parser.add_argument(
        "--rounds", type=options.positive, default=1, metavar="N", help="the fastest counts (default: 1)"
    )
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make(Path(args.make[0]), int(args.make[1]), int(args.make[2]))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        for images, annotations in ((100, 500), (args.images, args.annotations)):
            root = Path(folder) / str(images)
            sizes = [str(root / "coco"), str(images), str(annotations)]
            subprocess.run([sys.executable, "-m", "benchmarks.speed.check", "--make", *sizes], check=True)
            seconds, memory = measure(
                [*PIXBENCH[1:], "data", "check", "--root", str(root), "--only", "coco"], args.rounds
            )
            rows.append((f"{images:,} images, {annotations:,} annotations", f"{seconds:.1f}", f"{memory / 1e6:.0f}"))
    print(tabulate(rows, headers=("data check", "s", "MB")))


if __name__ == "__main__":
    main()
