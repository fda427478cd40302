"""Compute the metrics of a result again from what is stored beside it: detections, confusion matrix, values of images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixbench.errors import UserError
from pixbench.results import config_hash, per_image, read_arrays
from transfer.kept import CONFUSION, scores

EXACT = 1e-6
"""Largest difference of numbers that are written as they were computed."""
ROUNDED = {"mmseg": 0.0051}
"""Framework whose evaluator rounds its metrics -> largest difference."""


class Check(NamedTuple):
    """One number that was computed again, or one file that was compared."""

    what: str
    recorded: Any
    again: Any
    fits: bool


def verify(path: Path, result: dict[str, Any]) -> Iterator[Check]:
    """Yield what can be checked of a valid ``result`` with status "ok" in the file ``path``.

    The digest of its config, the files beside it, and each metric that follows from them.
    """
    if "config" in result and "config_sha256" in result:
        again = config_hash(result["config"])
        yield Check("config", result["config_sha256"], again, again == result["config_sha256"])
    sound = True
    for name in result.get("stored") or {}:
        try:
            read_arrays(path, result, name)
            yield Check(name, "as written", "as written", True)
        except UserError as error:
            sound = False
            yield Check(name, "as written", str(error), False)
    if not sound:
        return
    metrics, tolerance = result.get("metrics") or {}, ROUNDED.get(result.get("framework", ""), EXACT)
    again_by_name: dict[str, float] = {}
    if f"{CONFUSION}.npz" in (result.get("stored") or {}):
        held = read_arrays(path, result, f"{CONFUSION}.npz")
        again_by_name = scores(held["counts"], bool(held["absent_counts"]))
    for metric, recorded in metrics.items():
        found = [again_by_name[metric]] if metric in again_by_name else []
        arrays = per_image(path, metric)
        found += [] if arrays is None else [from_images(metric, arrays)]
        for value in found:
            yield Check(metric, recorded, value, _alike(recorded, value, tolerance))


def from_images(metric: str, arrays: dict[str, np.ndarray]) -> float:
    """Return ``metric`` from the values of all images, as `pixbench.results.per_image` describes them."""
    if "value" in arrays:
        values = arrays["value"][~np.isnan(arrays["value"])]
        return float(values.mean()) if len(values) else math.nan
    if "intersection" in arrays:
        return _from_areas(metric, arrays)
    from transfer.detection.matches import averages

    return averages(arrays)[metric.rpartition("_")[2]]


def _from_areas(metric: str, arrays: dict[str, np.ndarray]) -> float:
    right, union, label = (arrays[name].sum(0).astype(np.float64) for name in ("intersection", "union", "label"))
    with np.errstate(invalid="ignore"):
        if metric == "aAcc":
            return float(100 * right.sum() / label.sum())
        if metric == "mAcc":
            return float(np.nanmean(100 * right / label))
        iou = 100 * right / union
    return float(np.nan_to_num(iou).mean() if arrays["absent_counts"] else np.nanmean(iou))


def _alike(recorded: float | None, again: float, tolerance: float) -> bool:
    if recorded is None or math.isnan(again):
        return recorded is None and math.isnan(again)
    return abs(recorded - again) <= max(tolerance, EXACT * abs(again))
