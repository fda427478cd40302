"""Classify whole pictures by their averaged features: k-NN, logistic regression, and the Q-score of each picture.

Shapes: n training pictures, m others, C channels.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixbench.errors import UserError
from pixbench.files import write_text
from pretrain.knn import NEIGHBOURS, TEMPERATURE, knn, top1
from transfer.frozen import qscore
from transfer.frozen.limits import need
from transfer.frozen.linear import ITERATIONS, L2, fit_linear
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.scenes import Labelled
from transfer.frozen.views import Views
from transfer.kept import Kept

SPLITS = ("train", "test")
POOLED = True


@dataclass(frozen=True)
class Settings:
    """What decides the metrics besides the features."""

    neighbours: int = NEIGHBOURS
    temperature: float = TEMPERATURE
    l2: float = L2
    iterations: int = ITERATIONS
    """Steps of L-BFGS at most."""

    def __post_init__(self) -> None:
        need(self, "neighbours", "iterations", least=1)
        need(self, "temperature", above=0)
        need(self, "l2", least=0)


def views(split: str, views: Views, settings: Settings, seed: int) -> Views:
    """Return ``views``; raise UserError if there are fewer training pictures than neighbours."""
    if split == "train" and len(views) < settings.neighbours:
        raise UserError(
            f"{views.pictures.name} has {len(views)} pictures, but settings.neighbours asks for {settings.neighbours} "
            "neighbours; lower it, or add pictures"
        )
    return views


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Return k-NN and linear top-1 and the Q-scores; write those of each picture to ``run.out / "qscore.csv"``."""
    train, test = (splits[name].features.cells.to(run.device) for name in SPLITS)
    sources = [splits[name].views.pictures for name in SPLITS]
    labels, answers = (
        torch.tensor(source.source.labels, dtype=torch.int64, device=run.device)
        for source in sources
        if isinstance(source, Labelled)
    )
    classes = int(labels.max()) + 1
    guessed = knn(train, labels, test, classes, settings.neighbours, settings.temperature)
    predicted = fit_linear(train, labels, classes, settings.l2, settings.iterations).predict(test)
    scores, wrong = qscore.scores(test), (predicted != answers).cpu().numpy()
    _write_scores(run.out, splits["test"], answers.tolist(), predicted.tolist(), scores)
    kept = Kept()
    names = [name for source in sources[1:] if isinstance(source, Labelled) for name in source.source.names]
    right = {"knn_top1": guessed == answers, "linear_top1": predicted == answers}
    values = {name: 100 * found.double().cpu().numpy() for name, found in right.items()}
    kept.add_values(names, values | {f"{name}_mean": score for name, score in scores.items()})
    folders = [Path(name).parts[0] for name in names]
    kept.per_class = {name: by_class(folders, found) for name, found in values.items()}
    return Measured(
        {"knn_top1": top1(guessed, answers), "linear_top1": top1(predicted, answers), **qscore.diagnose(scores, wrong)},
        {"class_folders": classes},
        kept=kept,
    )


def by_class(folders: list[str], values: np.ndarray) -> dict[str, float]:
    """Return the mean of ``values`` (m,) over the pictures in each of ``folders``."""
    names, place = np.unique(folders, return_inverse=True)
    means = np.bincount(place, values) / np.bincount(place)
    return dict(zip(names.tolist(), means.tolist(), strict=True))


def _write_scores(
    out: Path, test: Split, answers: list[int], predicted: list[int], scores: dict[str, np.ndarray]
) -> None:
    pictures = test.views.pictures
    assert isinstance(pictures, Labelled)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "label", "predicted", *scores])
    rows.writerows(zip(pictures.source.names, answers, predicted, *scores.values(), strict=True))
    write_text(out / "qscore.csv", table.getvalue())
