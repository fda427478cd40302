"""Measure how much memory `pixbench probe` needs on class folders, and compare it with the formula.

    python -m benchmarks.speed.probe_memory [--train 200000] [--val 10000] [--channels 512] [--classes 200] [--into FILE]

The functions of the command run on generated features, one after another; images and backbone are stand-ins that cost nothing.
Printed is the peak of the process (`resource.getrusage`) after each of them, less what it had after the same work on a few
features. `needed` is the formula. Stored in docs/probe_memory.json, they are the table in docs/probe.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor

from benchmarks.probe import classify, dense, qscore
from benchmarks.probe.features import embed
from pixbench.files import write_json
from pretrain.knn import ASKED, KNOWN, knn
from pretrain.models.backbone_spec import BackboneSpec
from transfer.datasets.layout import SETS

PAIRS = 100
"""Pairs of vectors that PyTorch's L-BFGS keeps by default."""
OTHER_VECTORS = 15
"""Vectors of the size of the weights that it has besides: parameters, gradients, directions, the bracket of the line search."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of images, channels and classes."""

    train: int
    val: int
    channels: int
    classes: int


def needed(of: Sizes) -> dict[str, int]:
    """Return the bytes of the features, of the solver, and of what is worked on at a time (at most)."""
    rows = min(classify.rows(of.classes, of.channels), of.train)
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


class Images:
    """Stands in for a source: one small picture, many times."""

    def __init__(self, count: int) -> None:
        self._count, self._picture = count, Image.new("RGB", (8, 8))

    def __len__(self) -> int:
        return self._count

    def load(self, index: int) -> Image.Image:
        """Return the picture."""
        return self._picture


class Backbone:
    """Stands in for a frozen backbone: noise around a centre for each class. The class of image i is i mod K."""

    device = torch.device("cpu")

    def __init__(self, of: Sizes) -> None:
        self.network = SimpleNamespace(channels=of.channels)
        self._generator, self._seen = torch.Generator().manual_seed(0), 0
        self._centres = 0.1 * torch.randn(of.classes, of.channels, generator=self._generator)

    def __call__(self, images: Tensor) -> Tensor:
        """Return C5 (B, C, 1, 1)."""
        labels = torch.arange(self._seen, self._seen + len(images)) % len(self._centres)
        self._seen += len(images)
        noise = torch.randn(len(images), self._centres.shape[1], generator=self._generator)
        return (self._centres[labels] + noise)[..., None, None]


def work(of: Sizes) -> Iterator[str]:
    """Do what the command does, and yield the name of each part when it is done."""
    sources: list[Any] = [Images(of.train), Images(of.val)]
    backbone: Any = Backbone(of)
    train, val = (embed(backbone, source, size=8, batch=64, workers=0) for source in sources)
    yield "features"
    labels = torch.arange(of.train) % of.classes
    classifier = classify.fit_linear(train, labels, of.classes)
    yield "linear classifier"
    classifier.predict(val)
    qscore.scores(val)
    yield "predictions and Q-scores"
    knn(train, labels, val, of.classes)
    yield "k-NN"


def peak() -> int:
    """Return the largest resident memory that this process has had, in bytes.

    `getrusage` counts that of the process that started this one too.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def page(stored: dict[str, Any]) -> str:
    """Return the table of docs/probe.md: what is needed, and what was measured and ``stored``."""
    train, val = (part["count"] for part in SETS["imagenet"]["parts"])
    cells = SETS["cityscapes"]["parts"][0]["count"] * dense.CELLS
    channels = BackboneSpec().channels
    cases = {
        "ImageNet, ResNet-50": (Sizes(train, val, channels, 1000), "–"),
        "Cityscapes, ResNet-50": (Sizes(cells, 0, channels, dense.CLASSES), "–"),
        "generated features": (Sizes(**stored["sizes"]), gigabytes(max(stored["peaks"].values()))),
    }
    rows = []
    for name, (of, measured) in cases.items():
        parts = [*needed(of).values()]
        sizes = map(gigabytes, (*parts, sum(parts)))
        rows.append((name, f"{of.train + of.val:,}", of.channels, of.classes, *sizes, measured))
    headers = ("data", "vectors", "C", "K", "features", "solver", "at a time", "needed", "measured")
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
    for _ in work(Sizes(600, 100, of.channels, 4)):
        pass
    before = peak()
    peaks = {name: peak() - before for name in work(of)}
    rows = [(name, gigabytes(size)) for name, size in peaks.items()]
    print(tabulate(rows, ("after", "peak, GB"), tablefmt="github", disable_numparse=True))
    parts = needed(of)
    terms = " + ".join(f"{name} {gigabytes(size)}" for name, size in parts.items())
    print(f"needed: {terms} = {gigabytes(sum(parts.values()))} GB")
    if args.into:
        about = {"date": date.today().isoformat(), "torch": torch.__version__}
        write_json(args.into, {**about, "sizes": asdict(of), "peaks": peaks})


if __name__ == "__main__":
    main()
