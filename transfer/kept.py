"""What a run keeps beside its metrics: their values for each class and each image, and what they can be computed from again.

Shapes: I images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CONFUSION = "confusion"
"""Name of the file with "counts" (..., K, K), pixels of each (label, prediction), "classes" and "absent_counts"."""


@dataclass
class Kept:
    """Arrays by file and name, and where those of a metric are. Metrics have the names of the framework's evaluator."""

    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """File name without ".npz" -> name -> array."""
    per_image: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Metric -> what `pixbench.result_schema.Arrays` holds."""
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metric -> class -> value in the unit of the metric."""

    def add(self, file: str, metrics: Iterable[str], arrays: dict[str, np.ndarray]) -> None:
        """Keep ``arrays``, from which ``metrics`` follow for any set of images, in a file of their own."""
        self.arrays[file] = arrays
        for metric in metrics:
            self.per_image[metric] = {"file": f"{file}.npz", "arrays": {name: name for name in arrays}}

    def add_values(self, images: Sequence[str], values: dict[str, np.ndarray]) -> None:
        """Keep one number (I,) of each metric for each image; the metric is the mean of those that are not NaN."""
        self.arrays["images"] = {"images": np.array(images, dtype=str), **values}
        for metric in values:
            arrays = {"images": "images", "value": metric}
            self.per_image[metric] = {"file": "images.npz", "arrays": arrays}

    def add_areas(
        self,
        metrics: Iterable[str],
        images: Sequence[str],
        classes: Sequence[str],
        areas: Sequence[np.ndarray],
        absent_counts: bool = False,
        file: str = "areas",
    ) -> None:
        """Keep the ``areas`` (I, K) of intersection, union and label, in pixels."""
        named = zip(("intersection", "union", "label"), areas, strict=True)
        arrays = {name: np.asarray(area).astype(np.int64) for name, area in named}
        about = {"images": np.array(images, dtype=str), "classes": np.array(classes, dtype=str)}
        self.add(file, metrics, {**about, **arrays, "absent_counts": np.array(absent_counts)})

    def add_confusion(self, counts: np.ndarray, classes: Sequence[str], absent_counts: bool = False) -> None:
        """Keep the confusion matrix (K, K), or several (n, K, K) whose metrics are averaged, and the IoU of each class."""
        arrays = {"counts": counts, "classes": np.array(classes, dtype=str), "absent_counts": np.array(absent_counts)}
        self.arrays[CONFUSION] = arrays
        found = iou(counts)
        found = np.nan_to_num(found) if absent_counts else found
        self.per_class["mIoU"] = dict(zip(classes, found.reshape(-1, len(classes)).mean(0).tolist(), strict=True))


def iou(counts: np.ndarray) -> np.ndarray:
    """Return the IoU (..., K) of each class in per cent from confusion matrices (..., K, K); NaN where nothing is counted."""
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return 100 * right / (counts.sum(-1) + counts.sum(-2) - right)


def scores(counts: np.ndarray, absent_counts: bool) -> dict[str, float]:
    """Return "mIoU", "aAcc" and "mAcc" in per cent from confusion matrices (..., K, K), averaged over those.

    A class that is neither labelled nor predicted is left out of mIoU or, if ``absent_counts``, has an IoU of 0. mAcc is the
    mean over the labelled classes.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    found = np.nan_to_num(iou(counts)) if absent_counts else iou(counts)
    with np.errstate(invalid="ignore"):
        recall = 100 * right / counts.sum(-1)
    return {
        "mIoU": float(np.nanmean(found, axis=-1).mean()),
        "aAcc": float((100 * right.sum(-1) / counts.sum((-2, -1))).mean()),
        "mAcc": float(np.nanmean(recall, axis=-1).mean()),
    }
