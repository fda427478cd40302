"""Label-free numbers of a backbone's cells, and how their cosine falls with distance. They say why another number moves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfer.frozen import equivariance, spectrum
from transfer.frozen.limits import impossible, need
from transfer.frozen.method import Measured, Run, Split
from transfer.frozen.parts import Parts
from transfer.frozen.spatial import NEAR, Curve, pure_cells
from transfer.frozen.views import Images, Views

SPLITS = ("test", "test crop", "test flip")
BACKGROUND = "background"
"""Name of the class that is no object."""
OF_CELLS = "RankMe, α-ReQ, alignment and uniformity of cells, not of whole pictures"
WHY = {
    "rankme": "all features are 0",
    "alpha_req": "fewer than two eigenvalues with variance in the ranks that are fitted",
    "alignment": "no two cells of a picture have the same places in a crop",
    "uniformity": "there are fewer than two cells",
    "equivariance_crop": "no two cells of a picture have the same places in a crop",
    "equivariance_flip": "no picture has two cells",
    "sensitivity": "no two pure cells of different classes, or none of one region, are 1 or 2 cells apart",
    "smoothness": "no two pure cells of one region are neighbours",
}
"""Metric -> why it may be undefined."""
FEW = 100
"""A mean over fewer pairs of cells is noted: cosines spread by some tenths, so its error is some hundredths."""


@dataclass(frozen=True)
class Settings:
    """What decides the metrics besides the features."""

    cells: int = 20000
    """Number of cells at most for RankMe and α-ReQ, drawn from all."""
    epsilon: float = 1e-7
    """RankMe: what is added to each share."""
    first_rank: int = 6
    """α-ReQ: first rank that is fitted."""
    last_rank: int = 100
    """α-ReQ: last rank that is fitted."""
    uniformity_cells: int = 5000
    """Number of these cells at most whose pairs count for the uniformity."""
    t: float = 2.0
    """Uniformity: factor of the squared distance."""
    pairs: int = 20000
    """Number of pairs at most for alignment and each equivariance."""
    crop_low: float = 0.5
    """Smallest share of a picture's sides that a crop has."""
    crop_high: float = 0.8
    """Largest share."""
    purity: float = 0.9
    """Share of the pixels of a pure cell that are in one region."""
    distance: int = 8
    """Largest distance of two cells in the curve."""
    curve_cells: int = 131072
    """Number of cells at most, of whole pictures, in the curve."""

    def __post_init__(self) -> None:
        if not 0 < self.crop_low <= self.crop_high <= 1:
            raise ValueError(
                f"settings.crop_low {self.crop_low} and crop_high {self.crop_high} must be shares in order"
            )
        need(self, "cells", "first_rank", "distance", "curve_cells", least=1)
        need(self, "pairs", "uniformity_cells", least=2)
        need(self, "epsilon", "t", above=0)
        need(self, "purity", above=0, most=1)
        if self.last_rank <= self.first_rank:
            raise impossible(self, "last_rank", f"a rank above first_rank, {self.first_rank}")


def views(split: str, views: Views, settings: Settings, seed: int) -> Views:
    """Return the whole pictures, a part of each, or its mirror image, as the second word of ``split`` says."""
    if split.endswith("crop"):
        return Parts(views.pictures, views.images, settings.crop_low, settings.crop_high, seed=seed)
    return Parts(views.pictures, views.images, flip=True) if split.endswith("flip") else views


def without_effect(images: Images, settings: Settings) -> dict[str, str]:
    """Return the keys of a config that have no effect beside the others, each with the reason. Parts are always resized."""
    return {key: why for key, why in images.without_effect().items() if key != "images.interpolation"}


def evaluate(splits: dict[str, Split], settings: Settings, run: Run) -> Measured:
    """Return all numbers; those that the features do not define are NaN, and the facts say why."""
    test = splits["test"]
    cells = drawn(test.features.cells, settings.cells, run.seed).to(run.device)
    few = drawn(cells, settings.uniformity_cells, run.seed)
    decay, ranks = spectrum.alpha_req(spectrum.eigenspectrum(cells), settings.first_rank, settings.last_rank)
    found = {
        name: equivariance.cosines(test, splits[f"test {name}"], settings.pairs, run.seed) for name in ("crop", "flip")
    }
    same = {name: _mean(cosines.same) for name, cosines in found.items()}
    other = {name: _mean(cosines.other) for name, cosines in found.items()}
    curve, pictures = curve_of(test, settings)
    metrics = {
        "rankme": spectrum.rank_me(cells, settings.epsilon),
        "alpha_req": decay,
        "alignment": 2 - 2 * same["crop"],  # mean ‖x - y‖² of vectors of length 1
        "uniformity": spectrum.uniformity(few, settings.t),
        **{f"equivariance_{name}": same[name] - other[name] for name in found},
        "sensitivity": curve.sensitivity(),
        "smoothness": curve.smoothness(),
    }
    facts: dict[str, Any] = {
        "cells": {"all": len(test.features.cells), "spectra": len(cells), "uniformity": len(few)},
        "ranks": list(ranks),
        "pairs": {name: len(cosines.same) for name, cosines in found.items()},
        "cosine_same": same,
        "cosine_other": other,
        "curve": curve.as_list(test.features.stride),
        "curve_pictures": pictures,
        "few_pairs": few_pairs(_pairs(found, curve)),
        "undefined": {name: WHY[name] for name, value in metrics.items() if math.isnan(value)},
    }
    return Measured(metrics, facts, (OF_CELLS,))


def few_pairs(counts: dict[str, int]) -> str:
    """Return a sentence on the metrics that are means over few pairs of cells; "" without any. None at all is undefined."""
    few = ", ".join(f"{name} {count}" for name, count in counts.items() if 0 < count < FEW)
    return f"means over fewer than {FEW} pairs of cells, which are noisy: {few}" if few else ""


def _pairs(found: dict[str, equivariance.Cosines], curve: Curve) -> dict[str, int]:
    """Return metric -> number of pairs that it is a mean of; of the kind with fewer pairs, if there are two."""
    inside, across = (curve.counts[kind] for kind in ("inside", "across"))
    both = [(int(a), int(b)) for a, b in zip(inside[:NEAR], across[:NEAR], strict=True) if a and b]
    return {
        "alignment": len(found["crop"].same),
        **{f"equivariance_{name}": len(cosines.same) for name, cosines in found.items()},
        "sensitivity": min((sum(counts) for counts in zip(*both, strict=True)), default=0),
        "smoothness": int(inside[0]),
    }


def drawn(cells: Tensor, most: int, seed: int) -> Tensor:
    """Return ``most`` of ``cells`` (N, C) in their order, or all if they are not more. Only these are read."""
    if len(cells) <= most:
        return cells
    chosen = np.random.default_rng(seed).choice(len(cells), most, replace=False)
    return cells[torch.from_numpy(np.sort(chosen)).to(cells.device)]


def curve_of(test: Split, settings: Settings) -> tuple[Curve, int]:
    """Return the curve of pictures that are spread evenly over the split, and their number."""
    names = test.views.scenes.classes.names
    background = names.index(BACKGROUND) if BACKGROUND in names else None
    stride, total, curve = test.features.stride, test.features.starts[-1], Curve(settings.distance)
    count = max(1, min(len(test), settings.curve_cells * len(test) // total))
    for number in range(count):
        index = number * len(test) // count
        labels = test.views.labels(index)
        regions, classes = pure_cells(labels, test.features.shapes[index], stride, settings.purity)
        curve.add(test.features.map(index), regions, classes, background)
    return curve, count


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
