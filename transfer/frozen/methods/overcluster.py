"""Overclustering: cells are clustered without labels, and each cluster gets the class that most of its pixels have.

MkuuWaUjinga/leopart, experiments/overcluster/sup_overcluster.py (arXiv 2204.13101), and vpariza/NeCo,
experiments/overcluster/eval_overcluster.py (arXiv 2408.11054).

Shapes: N cells; K clusters; L classes; H × W pixels of a picture, h × w cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixbench.errors import UserError
from transfer.datasets.mask_numbers import IGNORED
from transfer.frozen.kmeans import kmeans, principal
from transfer.frozen.limits import need
from transfer.frozen.matching import new_numbers
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.patches import IGNORED_CLASS, Rows, moments
from transfer.frozen.samples import keep_labels
from transfer.frozen.scoring import Confusion, ScoreAt, need_score_at
from transfer.kept import Kept
from transfer.samples import chosen

SPLITS = ("test",)
WHOLE_CELLS = True


@dataclass(frozen=True)
class Settings:
    """What decides the metrics besides the features."""

    clusters: int = 500
    components: int = 50
    """Principal components that are clustered."""
    iterations: int = 100
    restarts: int = 5
    """The best of so many runs of k-means is taken."""
    runs: int = 5
    """The result is the mean over so many seeds."""
    batch: int = 60
    """Images that do not fill a batch are left out at the end, as the public loader does. 1 for all images."""
    ignored_is_class: bool = False
    """Whether the ignored number counts as one more class, whose IoU is always 0, as in NeCo's ADE20K."""
    score_at: ScoreAt = 100

    def __post_init__(self) -> None:
        need(self, "clusters", "components", "iterations", "restarts", "runs", "batch", least=1)
        need_score_at(self)


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Return the mean mIoU of ``settings.runs`` clusterings of the test images."""
    test = splits["test"]
    images = len(test) // settings.batch * settings.batch
    if not images:
        raise UserError(
            f"{test.views.pictures.name} has {len(test)} images, which do not fill a batch; set settings.batch to 1 to keep all"
        )
    points = reduced(test, images, settings.components, run)
    seeds = range(run.seed * settings.runs, (run.seed + 1) * settings.runs)
    members = [
        kmeans(points, settings.clusters, settings.iterations, settings.restarts, seed).assign(points)[0].cpu()
        for seed in seeds
    ]
    classes = len(test.views.scenes.classes)
    counts = [torch.zeros(settings.clusters, classes, dtype=torch.int64) for _ in seeds]
    for index in range(images):
        labels = scored_labels(test, index, settings.score_at)
        for found, cells in zip(counts, members, strict=True):
            clusters = spread(test, cells, index, labels.shape)
            known = labels != IGNORED
            pairs = clusters[known] * classes + labels[known]
            found += torch.bincount(pairs, minlength=found.numel()).view_as(found)
    classes += settings.ignored_is_class
    matchings = [matched(F.pad(found, (0, int(settings.ignored_is_class)))) for found in counts]
    each = [confusion.metrics(absent_counts=True) for confusion in matchings]
    facts = {
        "clusters": settings.clusters,
        "matching": "Hungarian" if settings.clusters == classes else "each cluster to the class of most of its pixels",
        "runs": {str(seed): one["mIoU"] for seed, one in zip(seeds, each, strict=True)},
        "test_images": images,
        "score_at": settings.score_at,
        "iou": torch.stack([confusion.iou() for confusion in matchings]).nan_to_num(0).mean(0).tolist(),
    }
    kept = Kept()
    names = [*test.views.scenes.classes.names] + [IGNORED_CLASS] * settings.ignored_is_class
    kept.add_confusion(torch.stack([confusion.counts for confusion in matchings]).numpy(), names, absent_counts=True)
    maps, owners = {}, owner_of(F.pad(counts[0], (0, int(settings.ignored_is_class))))  # of the first seed
    for index in chosen(test.views.scenes.names):
        if index < images:
            truth = scored_labels(test, index, settings.score_at)
            maps[index] = truth.numpy(), owners[spread(test, members[0], index, truth.shape)].numpy()
    keep_labels(kept, test.views.scenes, names, maps)
    return Measured({name: float(np.mean([one[name] for one in each])) for name in ("mIoU", "aAcc")}, facts, kept=kept)


def reduced(split: Split, images: int, components: int, run: Run) -> Tensor:
    """Return the principal components (N, components) of the standardised cells of the first ``images`` images."""
    cells = split.features.cells
    chosen = torch.arange(split.features.starts[images])
    mean, std = moments(cells, chosen)
    return principal(Rows(cells, chosen, mean.to(run.device), std.to(run.device), run.device), components)


def scored_labels(split: Split, index: int, score_at: ScoreAt) -> Tensor:
    """Return the label map (int64) of picture ``index`` at the resolution ``score_at``; a number: a square from the input."""
    if score_at == "full":
        return torch.from_numpy(split.views.scenes.label_map(index)).long()
    labels = torch.from_numpy(split.views.labels(index)).long()
    return labels if score_at == "input" else resized(labels, (score_at, score_at))


def spread(split: Split, cells: Tensor, index: int, shape: tuple[int, ...]) -> Tensor:
    """Return the values of the cells of picture ``index``, of ``cells`` (N,), as a map of ``shape``."""
    start, end = split.features.starts[index : index + 2]
    return resized(cells[start:end].view(split.features.shapes[index]), shape)


def resized(numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a map of integers (H, W) in another ``shape``, as PyTorch's nearest interpolation: the upper left neighbour."""
    return F.interpolate(numbers[None, None].double(), size=tuple(shape), mode="nearest")[0, 0].long()


def matched(counts: Tensor) -> Confusion:
    """Return the confusion of classes after each cluster got a class, from the pixels of each cluster and class (K, L).

    If there are as many clusters as classes, each class gets one cluster, so that the sum of IoU is largest. Otherwise each
    cluster gets the class of most of its pixels, the first of several.
    """
    classes = counts.shape[1]
    confusion = Confusion(classes)
    confusion.counts = torch.zeros(classes, classes, dtype=torch.int64).index_add_(0, owner_of(counts), counts).T
    return confusion


def owner_of(counts: Tensor) -> Tensor:
    """Return the class (K,) of each cluster; see `matched`."""
    clusters, classes = counts.shape
    if clusters != classes:
        return counts.argmax(1)
    confusion = Confusion(classes)
    confusion.counts = counts.T
    return new_numbers(confusion)
