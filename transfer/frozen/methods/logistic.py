"""Logistic regression on cells: all pixels of a cell get the class that is predicted for it.

facebookresearch/capi, eval_segmentation.py (arXiv 2502.08769). The public code calls cuML, which minimises what scikit-learn's
LogisticRegression does: C · Σ cross-entropy + 0.5 · ‖weight‖² with an intercept that is not penalised. For two classes there is
one weight vector (a sigmoid) instead of two. L-BFGS of `transfer.frozen.linear` finds the same minimum.

Shapes: n cells of C channels; K classes that occur.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixbench.errors import UserError
from transfer.frozen.limits import impossible, need
from transfer.frozen.linear import minimise, rows
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.patches import Cells, Rows, cells_of, halves, moments
from transfer.frozen.scoring import ScoreAt, held_out_pictures, need_score_at
from transfer.frozen.views import Images

SPLITS = ("train", "test")
WHOLE_CELLS = True


@dataclass(frozen=True)
class Settings:
    """What decides the metrics besides the features."""

    exponents: tuple[float, float, int] = (-6, 5, 8)
    """First and last exponent and number of the values of C to choose from: they are 10 to the power of evenly spaced numbers."""
    iterations: int = 1000
    """Iterations of L-BFGS at most, for each C."""
    tolerance: float = 1e-12
    """L-BFGS ends once the gradient or the change of the loss is smaller."""
    standardise: bool = True
    """Whether each channel is standardised by the training images that are not held out."""
    held_out: int = 10
    """One training image in so many is held out to choose on."""
    subsampling: int = 1
    """One training cell in so many is used."""
    score_at: ScoreAt = "input"

    def __post_init__(self) -> None:
        if not all(-30 <= exponent <= 30 for exponent in self.exponents[:2]) or self.exponents[2] < 1:
            raise impossible(self, "exponents", "two exponents from -30 to 30, and how many values of C, at least 1")
        need(self, "iterations", "subsampling", least=1)
        need(self, "tolerance", least=0)
        need(self, "held_out", least=2)  # one in one would leave no image to fit on
        need_score_at(self)


@dataclass(frozen=True)
class Logistic:
    """A classifier of standardised cells."""

    classes: Tensor
    """(K,) the number of each class that occurs, ascending."""
    weight: Tensor
    """(K, C), or (1, C) for two classes."""
    bias: Tensor
    iterations: int = 0
    """How many iterations L-BFGS took."""

    def predict(self, cells: Rows) -> Tensor:
        """Return the numbers (n,) uint8 of the most probable classes."""
        found = []
        for some in cells.parts(rows(*self.weight.shape)):
            logits = F.linear(some, self.weight, self.bias)
            found.append((logits[:, 0] > 0).long() if len(self.bias) == 1 else logits.argmax(1))
        return self.classes[torch.cat(found).cpu()].to(torch.uint8)


def fit(cells: Rows, labels: Tensor, c: float, settings: Settings, start: Logistic | None = None) -> Logistic:
    """Fit a classifier to ``cells`` and their ``labels`` (n,) with the inverse penalty ``c``, from that of another one.

    Raises:
        UserError: all have the same label.
    """
    classes, answers = labels.unique(return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            "all labelled training cells have the same class, so there is nothing to tell apart; add images"
        )
    answers, count, channels = answers.to(cells.device), 1 if len(classes) == 2 else len(classes), cells.cells.shape[1]
    weight = cells.mean.new_zeros(count, channels)
    bias = cells.mean.new_zeros(count)
    if start is not None and len(start.bias) == count == 1 and start.classes.equal(classes):
        weight, bias = start.weight.clone(), start.bias.clone()
    elif start is not None and min(len(start.bias), count) > 1:
        places = torch.searchsorted(classes, start.classes)  # those of a subset are among all
        weight[places], bias[places] = start.weight, start.bias
    size = rows(count, channels)

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(cells.parts(size), answers.split(size), strict=True)

    took = minimise(
        parts, len(cells), weight, bias, 1 / (c * len(cells)), settings.iterations, (settings.tolerance,) * 2
    )
    return Logistic(classes, weight, bias, took)


def without_effect(images: Images, settings: Settings) -> dict[str, str]:
    """Return the keys of a config that have no effect beside the others, each with the reason."""
    chooses = settings.exponents[2] > 1 or settings.standardise
    idle = {} if chooses else {"settings.held_out": "there is nothing to choose or to standardise"}
    return images.without_effect() | idle


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Choose C on held-out training images, and score the test images by a classifier of all training images."""
    train, test = (cells_of(splits[name]) for name in SPLITS)
    name, features = train.split.views.pictures.name, train.split.features.cells
    fitted, held = (train.of_images(some) for some in halves(len(train.split), run.seed, settings.held_out, name))
    mean, std = moments(features, fitted) if settings.standardise else (features[0] * 0, features[0] * 0 + 1)

    def standardised(cells: Cells, chosen: Tensor) -> Rows:
        return Rows(cells.split.features.cells, chosen, mean.to(run.device), std.to(run.device), run.device)

    def labelled(chosen: Tensor) -> Tensor:
        chosen = chosen[:: settings.subsampling]
        return chosen[train.known[chosen]]

    grid = (10 ** torch.linspace(*settings.exponents, dtype=torch.float64)).tolist()  # strong penalties first
    scores: dict[float, float] = {}
    fits: dict[float, Logistic] = {}
    if len(grid) > 1:
        kept, last, judges = labelled(fitted), None, held_out_pictures(settings.held_out)
        cells, judged = standardised(train, kept), standardised(train, held)
        for c in grid:
            fits[c] = last = fit(cells, train.modes[kept], c, settings, last)
            scores[c] = train.score(last.predict(judged)[:, None], held, pictures=judges)[0]
    c = max(grid, key=lambda some: scores.get(some, 0.0))  # the first of several
    kept = labelled(torch.arange(len(train.labels)))
    best = fit(standardised(train, kept), train.modes[kept], c, settings, fits.get(c))
    guesses = best.predict(standardised(test, torch.arange(len(test.labels))))
    scored = test.score(guesses[:, None], score_at=settings.score_at)
    facts = {
        "C": c,
        "held_out_mIoU": {f"{c:.3g}": score for c, score in scores.items()},
        "iterations": {f"{c:.3g}": found.iterations for c, found in fits.items()} | {"all": best.iterations},
        "training_patches": len(kept),
        "classes_without_a_patch": len(train.split.views.scenes.classes) - len(best.classes),
        "score_at": settings.score_at,
        "iou": scored.iou[:-1].tolist(),
    }
    return Measured({"mIoU": scored.miou, "aAcc": scored.accuracy}, facts, kept=test.kept(scored, guesses[:, None]))
