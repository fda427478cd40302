"""Measure how much memory the frozen classification of class folders needs besides its features, and compare it with the formula.

    python -m benchmarks.speed.probe_memory [--train 200000] [--val 10000] [--channels 512] [--classes 200] [--into FILE]

The functions of the method run on generated features, one after another. The features are mapped from a file, as those of a run
are, so the system may drop them from memory; they do not count. Printed is the largest growth of the memory that is the process's
own (RssAnon of /proc, looked at all the time). `needed` is the formula. Stored in docs/probe_memory.json, they are the table in
docs/frozen.md.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from pixbench.files import write_json
from pretrain.knn import ASKED, KNOWN, knn
from pretrain.models.backbone_spec import BackboneSpec
from transfer.datasets.layout import SETS
from transfer.frozen import linear, qscore

PAIRS = 100
"""Pairs of vectors that PyTorch's L-BFGS keeps by default."""
OTHER_VECTORS = 15
"""Vectors of the size of the weights that it has besides: parameters, gradients, directions, the bracket of the line search."""
LOOK_S = 0.002
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of images, channels and classes."""

    train: int
    val: int
    channels: int
    classes: int


def needed(of: Sizes) -> dict[str, int]:
    """Return the bytes of the features on the disk, of the solver, and of what is worked on at a time (at most)."""
    rows = min(linear.rows(of.classes, of.channels), of.train)
    parts = (
        4 * rows * (2 * of.channels + 4 * of.classes),  # standardised features; logits and their gradients
        4
        * KNOWN
        * (2 * of.channels + 3 * ASKED),  # training samples of length 1; cosines, and the order of the largest
        8 * qscore.ROWS * 5 * of.channels,
    )
    return {
        "features": 4 * (of.train + of.val) * of.channels,
        "solver": 4 * (2 * PAIRS + OTHER_VECTORS) * of.classes * (of.channels + 1),
        "part": max(parts),
    }


def measured(of: Sizes, iterations: int = linear.ITERATIONS) -> dict[str, int]:
    """Return the growth of the process's own memory, in bytes, in each part of the method."""
    with tempfile.TemporaryDirectory() as folder:
        train, val = (
            generated(Path(folder) / name, count, of) for name, count in (("train", of.train), ("val", of.val))
        )
        labels = torch.arange(of.train) % of.classes
        few = slice(0, 600)
        linear.fit_linear(train[few], labels[few], of.classes, iterations=2).predict(val[:100])  # libraries start
        knn(train[few], labels[few], val[:100], of.classes)
        classifier: list[linear.Linear] = []
        parts: dict[str, Callable[[], object]] = {
            "linear classifier": lambda: classifier.append(
                linear.fit_linear(train, labels, of.classes, iterations=iterations)
            ),
            "predictions and Q-scores": lambda: (classifier[0].predict(val), qscore.scores(val)),
            "k-NN": lambda: knn(train, labels, val, of.classes),
        }
        return {name: growth(work) for name, work in parts.items()}


def generated(path: Path, count: int, of: Sizes) -> Tensor:
    """Write features, noise around a centre for each class, and map them: (count, C). The class of vector i is i mod K."""
    random = np.random.default_rng(0)
    centres = 0.1 * random.standard_normal((of.classes, of.channels), np.float32)
    values = np.memmap(path, np.float32, "w+", shape=(count, of.channels))
    for first in range(0, count, 1024):
        rows = np.arange(first, min(first + 1024, count))
        values[rows] = centres[rows % of.classes] + random.standard_normal((len(rows), of.channels), np.float32)
    values.flush()
    return torch.from_numpy(values)


def growth(work: Callable[[], object]) -> int:
    """Return by how many bytes the memory of this process grows at most while ``work`` runs, mapped files left out."""
    before, found, done = own(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_S):
            found.append(own() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(found)


def own() -> int:
    """Return the resident memory of this process in bytes, without that of files."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def page(stored: dict[str, Any]) -> str:
    """Return the table of docs/frozen.md: what is needed, and what was measured and ``stored``."""
    train, val = (part["count"] for part in SETS["imagenet"]["parts"])
    cases = {
        "ImageNet, ResNet-50": (Sizes(train, val, BackboneSpec().channels, 1000), "–"),
        "generated features": (Sizes(**stored["sizes"]), gigabytes(max(stored["peaks"].values()))),
    }
    rows = []
    for name, (of, found) in cases.items():
        disk, *parts = needed(of).values()
        sizes = map(gigabytes, (disk, *parts, sum(parts)))
        rows.append((name, f"{of.train + of.val:,}", of.channels, of.classes, *sizes, found))
    headers = ("data", "vectors", "C", "K", "features on disk", "solver", "at a time", "memory needed", "measured")
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return f"{table}\n\n*In GB. Measured on {stored['date']} with PyTorch {stored['torch']}, on a CPU.*"


def gigabytes(size: int) -> str:
    """Return a number of bytes in GB."""
    return f"{size / 1e9:.2f}"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("train", 200_000), ("val", 10_000), ("channels", 512), ("classes", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--into", type=Path, metavar="FILE", help="also write the figures to FILE, in JSON")
    args = parser.parse_args()
    of = Sizes(args.train, args.val, args.channels, args.classes)
    peaks = measured(of)
    rows = [(name, gigabytes(size)) for name, size in peaks.items()]
    print(tabulate(rows, ("part", "growth, GB"), tablefmt="github", disable_numparse=True))
    disk, *parts = needed(of).items()
    terms = " + ".join(f"{name} {gigabytes(size)}" for name, size in parts)
    print(
        f"needed: {terms} = {gigabytes(sum(size for _, size in parts))} GB; features on disk: {gigabytes(disk[1])} GB"
    )
    if args.into:
        about = {"date": date.today().isoformat(), "torch": torch.__version__}
        write_json(args.into, {**about, "sizes": asdict(of), "peaks": peaks})


if __name__ == "__main__":
    main()
