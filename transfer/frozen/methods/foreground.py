"""Foreground extraction by clusters (CBFE of Leopart): clusters whose cells are often salient are foreground.

MkuuWaUjinga/leopart, experiments/fully_unsup_seg/fully_unsup_seg.py (arXiv 2204.13101). The public code finds salient cells by
attention maps of a DINO ViT-S/16, whatever backbone is evaluated. A backbone without class token has no such maps, and
maps of another network would measure that network too; here a cell is salient if it resembles the seed of LOST (2109.14279):
the cell that resembles the fewest others of its picture, as objects cover less of it than their surroundings.

Shapes: N cells of D principal components; K clusters; n images; h × w cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import label
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from pixbench.errors import UserError
from transfer.datasets.classes import Classes
from transfer.frozen.kmeans import kmeans, principal
from transfer.frozen.limits import need, need_order
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.methods.overcluster import resized, spread
from transfer.frozen.patches import Rows, moments
from transfer.frozen.samples import keep_labels
from transfer.frozen.views import Views
from transfer.kept import Kept
from transfer.samples import chosen

SPLITS = ("train", "test")
WHOLE_CELLS = True
SALIENCY = (
    "salient cells are those that resemble the cell with the fewest similar ones in its picture (the seed of LOST), instead of "
    "those that the class token of a DINO ViT-S/16 attends to"
)
TWO = Classes(("background", "foreground"), "the protocol")
STEP = 0.05
"""Precisions are compared with a multiple of it."""


@dataclass(frozen=True)
class Settings:
    """What decides the metrics besides the features."""

    clusters: int = 200
    components: int = 50
    iterations: int = 100
    restarts: int = 5
    mass: float = 0.65
    """Share of the saliency of a picture that its salient cells have."""
    blur: float = 0.6
    """Standard deviation of the blur of saliency maps, in cells."""
    smallest: int = 3
    """Least number of connected salient cells."""
    background: tuple[float, float] = (0.55, 0.75)
    """Least and largest share of clusters that are background, to choose from."""
    compare_at: int = 100
    """Side in pixels of the maps in which clusters are compared with saliency and, to choose, with labels."""

    def __post_init__(self) -> None:
        need(self, "clusters", "components", "iterations", "restarts", "smallest", "compare_at", least=1)
        need(self, "mass", above=0, most=1)
        need(self, "blur", above=0)
        need(self, "background", least=0, most=1)
        need_order(self, "background")


def views(split: str, views: Views, settings: Settings, seed: int) -> Views:
    """Return the training pictures that VOC itself has masks for; those of SBD are not used."""
    scenes = views.scenes
    own = [place for place, truth in enumerate(scenes.truths) if not truth.parent.name.endswith("Aug")]
    if split != "train" or not own:
        return views
    pictures, truths = ([files[place] for place in own] for files in (scenes.pictures, scenes.truths))
    return replace(views, pictures=replace(scenes, pictures=tuple(pictures), truths=tuple(truths)))


@dataclass(frozen=True)
class Overlap:
    """Pixels of clusters in the maps of n images."""

    areas: Tensor
    """(n, K) pixels of each cluster."""
    hits: Tensor
    """(n, K) pixels of each cluster in the foreground."""
    total: Tensor
    """(n,) pixels of the foreground."""

    def each(self, chosen: Tensor) -> Tensor:
        """Return the IoU (n,) of the foreground of each image and the clusters ``chosen`` (K,) bool, in per cent.

        It is NaN for an image without any foreground, labelled or predicted.
        """
        hits, areas = (self.hits[:, chosen].sum(1), self.areas[:, chosen].sum(1))
        return 100 * hits.double() / (self.total + areas - hits)

    def jaccard(self, chosen: Tensor) -> float:
        """Return the mean of `each`; images where it is NaN are left out."""
        return self.each(chosen).nanmean().item()

    def precisions(self) -> Tensor:
        """Return the precision (K,) of each cluster, averaged over the images where it occurs; 0 if it does not."""
        shares = self.hits.double() / self.areas.clamp(min=1)
        return shares.sum(0) / (self.areas > 0).sum(0).clamp(min=1)


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Return the mean Jaccard index of the foreground of the test images, boundaries included."""
    train, test = (splits[name] for name in SPLITS)
    points = _reduced(train, test, settings.components, run)
    clustering = kmeans(points, settings.clusters, settings.iterations, settings.restarts, run.seed, spherical=True)
    members = clustering.assign(points)[0].cpu().split([len(split.features.cells) for split in (train, test)])
    points = points.cpu().split([len(split.features.cells) for split in (train, test)])

    def overlap(number: int, side: int | None, salient: bool) -> Overlap:
        return _overlap((train, test)[number], members[number], points[number], settings, side, salient)

    side = settings.compare_at
    precisions = overlap(0, side, True).precisions()
    threshold = chosen_threshold(precisions, overlap(0, side, False), settings.background)
    foreground = overlap(1, side, True).precisions() >= threshold - 1e-9
    found = overlap(1, None, False)
    facts = {
        "threshold": threshold,
        "foreground_clusters": int(foreground.sum()),
        "all_foreground": found.jaccard(torch.ones(settings.clusters, dtype=torch.bool)),
        "score_at": "input",
    }
    kept = Kept()
    kept.add_values(test.views.scenes.names, {"Jaccard": found.each(foreground).numpy()})
    maps = {}
    for index in chosen(test.views.scenes.names):
        truth = test.views.labels(index) != 0
        guess = foreground[_clusters(test, members[1], index, settings, truth.shape)]
        maps[index] = truth.astype(np.uint8), guess.numpy().astype(np.uint8)
    keep_labels(kept, test.views.scenes, TWO.names, maps, TWO)
    return Measured({"Jaccard": found.jaccard(foreground)}, facts, (SALIENCY,), kept)


def _reduced(train: Split, test: Split, components: int, run: Run) -> Tensor:
    """Return the principal components of the cells of both splits, standardised together."""
    both = _Both(train.features.cells, test.features.cells)
    every = torch.arange(len(both.train) + len(both.test))
    mean, std = moments(both, every)  # type: ignore[arg-type]
    return principal(Rows(both, every, mean.to(run.device), std.to(run.device), run.device), components)  # type: ignore[arg-type]


class _Both:
    """The cells of two splits as one, without a copy."""

    def __init__(self, train: Tensor, test: Tensor) -> None:
        self.train, self.test = train, test
        self.shape, self.dtype = (len(train) + len(test), train.shape[1]), train.dtype

    def __getitem__(self, chosen: Tensor) -> Tensor:
        first = chosen[chosen < len(self.train)]
        return torch.cat((self.train[first], self.test[chosen[len(first) :] - len(self.train)]))


def _overlap(
    split: Split, members: Tensor, points: Tensor, settings: Settings, side: int | None, salient: bool
) -> Overlap:
    """Compare clusters with salient cells or with labels, at ``side`` pixels or at the size of the input."""
    clusters, found = settings.clusters, []
    for index in range(len(split)):
        start, end = split.features.starts[index : index + 2]
        grid = split.features.shapes[index]
        if salient:
            truth = salient_cells(points[start:end].view(*grid, -1), settings).long()
        else:
            truth = torch.from_numpy(split.views.labels(index)).long()
        shape = (side, side) if side else tuple(truth.shape)
        truth = resized(truth, shape).flatten() != 0
        numbers = _clusters(split, members, index, settings, shape).flatten()
        counts = [torch.bincount(some, minlength=clusters) for some in (numbers, numbers[truth])]
        found.append((*counts, truth.sum()))
    areas, hits, total = (torch.stack(some) for some in zip(*found, strict=True))
    return Overlap(areas, hits, total)


def _clusters(split: Split, members: Tensor, index: int, settings: Settings, shape: tuple[int, ...]) -> Tensor:
    """Return the clusters of the cells of picture ``index``, of ``members`` (N,), as a map of ``shape``."""
    return resized(spread(split, members, index, (settings.compare_at,) * 2), shape)


def salient_cells(features: Tensor, settings: Settings) -> Tensor:
    """Return which cells (h, w) bool of a map (h, w, D) are salient.

    Saliency is the inner product with the seed, the cell with the fewest positive inner products. The most salient cells that
    have the share ``settings.mass`` of all saliency are taken, and small islands removed.
    """
    height, width = features.shape[:2]
    cells = features.flatten(0, 1)
    products = cells @ cells.T
    scores = products[(products > 0).sum(1).argmin()].clamp(min=0).view(height, width)
    size = [min(7, 2 * side - 1) for side in (width, height)]  # a reflection is no longer than the map
    scores = gaussian_blur(scores[None, None], size, [settings.blur] * 2)[0, 0].flatten()
    values, order = scores.sort()
    kept = (values / values.sum().clamp(min=1e-12)).cumsum(0) > 1 - settings.mass
    chosen = torch.zeros(height * width, dtype=torch.bool)
    chosen[order] = kept
    islands, _ = label(chosen.view(height, width).numpy(), structure=np.ones((3, 3)))
    sizes = np.bincount(islands.flatten())
    return chosen.view(height, width) & torch.from_numpy(sizes[islands] >= settings.smallest)


def chosen_threshold(precisions: Tensor, labelled: Overlap, background: tuple[float, float]) -> float:
    """Return the precision from which on clusters are foreground, a multiple of `STEP`.

    Of the numbers of background clusters in the range ``background``, the one is taken whose foreground has the largest mean
    IoU with the labels of the training images.

    Raises:
        UserError: there are too few clusters for any number to lie in the range.
    """
    values, order = precisions.sort(stable=True)
    clusters, best, threshold = len(values), -1.0, None
    for start in range(int(background[0] * clusters), int(background[1] * clusters)):
        chosen = torch.zeros(clusters, dtype=torch.bool)
        chosen[order[start:]] = True
        if (found := labelled.jaccard(chosen)) >= best:  # the last of several
            best, threshold = found, values[start].item()
    if threshold is None:
        raise UserError(
            f"no number of {clusters} clusters lies between the shares {background[0]:g} and {background[1]:g} of "
            "settings.background; raise settings.clusters"
        )
    return float(STEP * round(min(threshold / STEP, 1 / STEP - 1)))
