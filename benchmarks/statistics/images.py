"""Bootstrap over the images of a test set: how much a metric depends on which images happen to be in it.

Legend: I images, K classes, R resamples. Arrays of one run, as results store them: "images" (I,) names, and either "value"
(I,), whose mean is the metric (NaN: the image is left out), or "intersection" and "union" (I, K) in pixels, whose sums over
images give the mean IoU, or the matches of detections, whose AP is the metric. A class without a union counts as 0 if
"absent_counts" is true; otherwise it is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from benchmarks.statistics.intervals import LEVEL, Estimate
from benchmarks.statistics.precision import average_precision_of
from pixbench.errors import UserError

Arrays = Mapping[str, NDArray]
"""Per-image arrays of one run."""
RESAMPLES = 2000
FEWEST = 20
"""Fewest images for which an interval is given."""


def over_images(runs: Sequence[Arrays], baseline: Sequence[Arrays] = (), seed: int = 0) -> Estimate:
    """Return the mean of a metric over ``runs``, minus that over ``baseline``, with a 95 % bootstrap interval over images.

    Each resample draws I images with replacement, the same for all runs, so that a difference is paired. The interval
    (`scipy.stats.bootstrap`, bias-corrected and accelerated) says nothing about seeds: the runs are taken as they are.

    Raises:
        UserError: the runs were measured on different images.
    """
    names = runs[0]["images"]
    metrics = [_metric(arrays, _order(arrays["images"], names)) for arrays in (*runs, *baseline)]
    weights = [1 / len(runs)] * len(runs) + [-1 / len(baseline) for _ in baseline]

    def metric(index: NDArray, axis: int = -1) -> NDArray:  # (..., I) numbers of images -> (...)
        draws = np.moveaxis(index, axis, -1).reshape(-1, index.shape[axis])
        counts = np.stack([np.bincount(draw, minlength=len(names)) for draw in draws]).astype(float)  # (R, I)
        total = sum(weight * of(counts) for of, weight in zip(metrics, weights, strict=True))
        return np.reshape(np.asarray(total), np.delete(index.shape, axis))

    images = np.arange(len(names))
    value = float(metric(images))
    if len(names) < FEWEST:
        reason = f"{len(names)} images are too few to say: at least {FEWEST} are needed"
        return Estimate(value, None, len(names), reason=reason)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):  # of equal resamples, see below
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        found = scipy.stats.bootstrap(
            (images,), metric, n_resamples=RESAMPLES, batch=100, vectorized=True, confidence_level=LEVEL,
            method="BCa", rng=np.random.default_rng(seed),
        )  # fmt: skip
    low, high = map(float, found.confidence_interval)
    if np.isnan(low):
        return Estimate(value, None, len(names), reason="every resample of the images gives the same number")
    return Estimate(value, float(found.standard_error), len(names), low, high)


def _metric(arrays: Arrays, order: NDArray) -> Callable[[NDArray], NDArray]:
    """Return the function that gives the metric (R,) of images that are drawn ``counts`` (R, I) times; of an IoU in per cent."""
    if "right" in arrays:
        return average_precision_of(arrays, order)
    if "value" in arrays:
        return lambda counts: _mean(counts, np.asarray(arrays["value"], float)[order])
    intersection, union = (np.asarray(arrays[name], float)[order] for name in ("intersection", "union"))
    absent = 0.0 if arrays.get("absent_counts") else np.nan
    return lambda counts: _mean_iou(counts @ intersection, counts @ union, absent)


def _mean(counts: NDArray, value: NDArray) -> NDArray:
    known = ~np.isnan(value)
    mean: NDArray = counts[:, known] @ value[known] / counts[:, known].sum(1)
    return mean


def _mean_iou(intersection: NDArray, union: NDArray, absent: float) -> NDArray:  # (R, K)
    iou = np.divide(intersection, union, out=np.full(union.shape, absent), where=union > 0)
    return 100 * np.nanmean(iou, axis=1)


def _order(found: NDArray, names: NDArray) -> NDArray:
    """Return the places of ``names`` (I,) in ``found`` (I,)."""
    if len(found) != len(names) or set(found.tolist()) != set(names.tolist()):
        other = sorted(set(found.tolist()) ^ set(names.tolist()))[:3]
        raise UserError(
            f"the runs were measured on different images ({len(names)} and {len(found)}; not in both: "
            f"{', '.join(map(str, other))}); compare runs on the same images"
        )
    return np.argsort(found)[np.argsort(np.argsort(names))]
