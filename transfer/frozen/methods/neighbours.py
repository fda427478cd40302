"""k-NN segmentation: each pixel of a cell gets the most frequent label of the same pixel in the most similar cells.

facebookresearch/capi, eval_segmentation.py (arXiv 2502.08769).

Shapes: n cells of P pixels and C channels; M memory cells; k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pixbench.errors import UserError
from transfer.frozen.limits import impossible, need
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.patches import KEPT, Cells, Rows, cells_of, halves, moments
from transfer.frozen.scoring import ScoreAt, held_out_pictures, need_score_at
from transfer.frozen.search import Metric, nearest
from transfer.frozen.views import Images

SPLITS = ("train", "test")
WHOLE_CELLS = True
METRICS: dict[str, Metric] = {"cosine": "cosine", "L2": "l2"}
VOTES = 2**22
"""Number of labels that are counted at a time."""
PRECISION = (
    "neighbours are searched in float32; the published numbers were made with bfloat16 (default_eval_config.yaml)"
)
MOST = 127
"""Most neighbours: `votes` keeps their number in 7 bits."""

Distance = Literal["cosine", "L2"]


@dataclass(frozen=True)
class Settings:
    """What decides the metrics besides the features."""

    neighbours: tuple[int, ...] = (1, 3, 10, 30)
    """Values of k to choose from, in ascending order."""
    distances: tuple[Distance, ...] = ("cosine", "L2")
    """Distances to choose from."""
    standardise: bool = True
    """Whether each channel is standardised by the training images that are not held out."""
    held_out: int = 10
    """One training image in so many is held out to choose on."""
    subsampling: int = 1
    """One training cell in so many is used."""
    score_at: ScoreAt = "input"

    def __post_init__(self) -> None:
        ascending = sorted(set(self.neighbours)) == list(self.neighbours)
        if not self.neighbours or not ascending or not 0 < self.neighbours[0] <= self.neighbours[-1] <= MOST:
            raise impossible(self, "neighbours", f"ascending integers from 1 to {MOST}")
        if not self.distances:
            raise impossible(self, "distances", "at least one")
        need(self, "subsampling", least=1)
        need(self, "held_out", least=2)  # one in one would leave no image to search in
        need_score_at(self)


def without_effect(images: Images, settings: Settings) -> dict[str, str]:
    """Return the keys of a config that have no effect beside the others, each with the reason."""
    chooses = len(settings.neighbours) * len(settings.distances) > 1 or settings.standardise
    idle = {} if chooses else {"settings.held_out": "there is nothing to choose or to standardise"}
    return images.without_effect() | idle


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Choose k and distance on held-out training images, and score the test images by all training images."""
    train, test = (cells_of(splits[name]) for name in SPLITS)
    name = train.split.views.pictures.name
    fitted, held = (train.of_images(some) for some in halves(len(train.split), run.seed, settings.held_out, name))
    mean, std = _scale(train.split.features.cells, fitted if settings.standardise else None)

    def rows(cells: Cells, chosen: Tensor) -> Rows:
        return Rows(cells.split.features.cells, chosen, mean.to(run.device), std.to(run.device), run.device)

    def memory(chosen: Tensor) -> Tensor:
        chosen = chosen[:: settings.subsampling]
        kept = chosen[train.known[chosen]]
        if len(kept) < settings.neighbours[-1]:
            raise UserError(
                f"{name} has {len(kept)} cells of a class to search in, but settings.neighbours asks for "
                f"{settings.neighbours[-1]} neighbours; lower it, or add labelled images"
            )
        return kept

    scores: dict[tuple[int, Distance], float] = {}
    if len(settings.neighbours) * len(settings.distances) > 1:
        kept, judges = memory(fitted), held_out_pictures(settings.held_out)
        queries, keys = rows(train, held), rows(train, kept)
        for distance in settings.distances:
            found = transferred(queries, keys, train.labels[kept], settings.neighbours, distance)
            scores |= {(k, distance): train.score(labels, held, pictures=judges)[0] for k, labels in found.items()}
    grid = [(k, distance) for k in settings.neighbours for distance in settings.distances]
    k, distance = max(grid, key=lambda some: scores.get(some, 0.0))  # the first of several
    kept = memory(torch.arange(len(train.labels)))
    every = rows(test, torch.arange(len(test.labels)))
    found = transferred(every, rows(train, kept), train.labels[kept], (k,), distance)
    scored = test.score(found[k], score_at=settings.score_at)
    facts = {
        "neighbours": k,
        "distance": distance,
        "held_out_mIoU": {f"{k} {distance}": score for (k, distance), score in scores.items()},
        "memory_patches": len(kept),
        "ignored_predicted": not scored.iou[-1].isnan().item(),
        "score_at": settings.score_at,
        "iou": scored.iou[:-1].tolist(),
    }
    return Measured({"mIoU": scored.miou, "aAcc": scored.accuracy}, facts, (PRECISION,), test.kept(scored, found[k]))


def _scale(cells: Tensor, fitted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what is subtracted from the channels and what they are divided by."""
    if fitted is None:
        return torch.zeros_like(cells[0]), torch.ones_like(cells[0])
    return moments(cells, fitted)


def transferred(
    queries: Rows, memory: Rows, labels: Tensor, neighbours: tuple[int, ...], distance: Distance
) -> dict[int, Tensor]:
    """Return k -> the labels (n, P) uint8 of ``queries`` by their k nearest. One search serves all k.

    Args:
        queries: n cells.
        memory: M cells.
        labels: (M, P) uint8, of the cells in memory.
        neighbours: values of k, ascending.
        distance: how cells are compared.
    """
    found: dict[int, list[Tensor]] = {k: [] for k in neighbours}
    for asked in queries.parts(max(1, KEPT // memory.shape[1] // 4)):
        places = nearest(asked, memory, neighbours[-1], METRICS[distance]).patches
        for some in places.cpu().split(max(1, VOTES // (labels.shape[1] * places.shape[1]))):
            for k, winners in votes(labels[some], neighbours).items():
                found[k].append(winners)
    return {k: torch.cat(parts) for k, parts in found.items()}


def votes(labels: Tensor, neighbours: tuple[int, ...]) -> dict[int, Tensor]:
    """Return k -> the most frequent of the first k ``labels`` (n, k', P) uint8 at each pixel, the smallest one in a tie.

    The label of each neighbour is compared with those of the nearer ones, so all k cost as much as the largest. It takes half
    the time of ``torch.mode`` for one of 30.
    """
    counts, best = torch.zeros_like(labels), {}
    keys = torch.empty(*labels.shape, 2, dtype=torch.uint8)  # of 16 bits: how often, then how small
    keys[..., 0] = 255 - labels
    for number in range(labels.shape[1]):
        counts += labels == labels[:, number : number + 1]
        if number + 1 in neighbours:
            keys[:, : number + 1, :, 1] = counts[:, : number + 1]
            largest = keys[:, : number + 1].view(torch.int16)[..., 0].amax(1)
            best[number + 1] = 255 - (largest & 255).to(torch.uint8)
    return best
