"""Measure how in-context numbers depend on labels and on the resolution of scores, for docs/protocols/voc12aug_incontext.md.

    python scripts/score_at.py -o docs/score_at.json

On a mini world, with a random backbone: the steps from the public code to the paper's definition, which a run of the public
variant records; the paper's variant scored at several resolutions; and the same for the class shares of the test patches
themselves in place of retrieved ones, about what the best features of such patches reach.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.miniworld.generate import World, generate
from pixbench.files import write_json
from transfer.frozen.config import resolve
from transfer.frozen.memory import Labelling, label_map
from transfer.frozen.patch_labels import class_counts
from transfer.frozen.run import views_of
from transfer.frozen.scoring import Confusion, ScoreAt, labels_to_score
from transfer.job import TransferJob
from transfer.protocols import find_protocol
from transfer.run import run_transfer

DATA = ("voc12aug", "ade20k", "cityscapes")
SIZES: tuple[ScoreAt, ...] = ("full", "input", 100, 32)
STRIDE = 16
"""Side in pixels of the patches of the random backbone."""


def measured(work: Path, images: int) -> dict[str, Any]:
    """Return all numbers, by data set; ``work`` is an empty folder."""
    world = work / "world"
    generate(world, World(seed=1, images=images, name="shapes"), workers=2)
    found: dict[str, Any] = {"images": images, "seed": 1, "steps": {}, "retrieved": {}, "own": {}}
    for data in DATA:
        job = TransferJob(find_protocol(f"{data}_incontext_public"), world, work / f"{data} public", scale="mini")
        found["steps"][data] = run_transfer(job)["evaluation"]["mIoU_steps_to_paper"]
        paper = find_protocol(f"{data}_incontext")
        job = TransferJob(paper, world, work, scale="mini", cache=work / "cache")
        found["size"] = resolve(job).images.size
        found["retrieved"][data], found["own"][data] = {}, {}
        for size in SIZES:
            one = replace(job, out=work / f"{data} {size}", overrides={"settings.score_at": size})
            found["retrieved"][data][str(size)] = run_transfer(one)["metrics"]["mIoU"]
            found["own"][data][str(size)] = own_labels(job, size)
    return found


def own_labels(job: TransferJob, size: ScoreAt) -> float:
    """Return the mIoU of test pictures whose patches get the class shares of their own pixels."""
    views, labelling = views_of(job, resolve(job), "test"), Labelling()
    scenes = views.scenes
    confusion = Confusion(labelling.classes(scenes))
    for index in range(len(views)):
        labels = views.labels(index)
        cells = labels.shape[0] // STRIDE, labels.shape[1] // STRIDE
        counts = class_counts(labels, cells, STRIDE, labelling.classes(scenes))
        shares = counts / counts.sum(1, keepdims=True).clip(1)
        truth = labels_to_score(views, index, size)
        confusion.add(truth, label_map(torch.from_numpy(shares).view(*cells, -1), truth.shape))
    return confusion.metrics()["mIoU"]


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--images", type=int, default=600, help="images of the mini world (default: 600)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        write_json(args.output, measured(Path(work), args.images))


if __name__ == "__main__":
    main()
