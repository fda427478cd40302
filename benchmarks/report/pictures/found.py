"""Compare what runs found in a picture with the truth, in words.

Shapes: n objects; a label map has h × w pixels; K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from transfer.datasets.mask_numbers import IGNORED

IOU = 0.5
"""Overlap of boxes from which an object of the same class is right."""
SHARES = 4
"""Most classes of a label map that are named."""


@dataclass(frozen=True)
class Objects:
    """The objects of a picture that are drawn."""

    boxes: np.ndarray
    """(n, 4), in shares of the sides of the picture."""
    classes: np.ndarray
    """(n,) numbers."""
    scores: np.ndarray | None
    """(n,), descending; None for the truth."""
    masks: np.ndarray | None
    """(n, ⌈h·w / 8⌉) uint8, packed."""
    keypoints: np.ndarray | None


def objects(arrays: dict[str, np.ndarray], name: str, number: int, count: int | None = None) -> Objects:
    """Return the objects "truth" or "found" of picture ``number``; the first ``count`` of them."""
    parts = {
        key: arrays[f"{name}_{key}_{number}"][:count] if f"{name}_{key}_{number}" in arrays else None
        for key in ("boxes", "classes", "scores", "masks", "keypoints")
    }
    boxes, classes = parts.pop("boxes"), parts.pop("classes")
    assert boxes is not None
    assert classes is not None
    return Objects(boxes, classes, **parts)


def matched(found: Objects, truth: Objects) -> list[bool]:
    """Return whether each found object has a true one of its class, not yet taken by one before it, with an IoU of `IOU`."""
    free, right = [*range(len(truth.boxes))], []
    for box, kind in zip(found.boxes, found.classes, strict=True):
        overlaps = {place: _iou(box, truth.boxes[place]) for place in free if truth.classes[place] == kind}
        best = max(overlaps, key=lambda place: overlaps[place], default=None)
        right.append(best is not None and overlaps[best] >= IOU)
        if right[-1]:
            free.remove(best)
    return right


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    common = float(np.prod((high - low).clip(min=0)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return common / max(sum(areas) - common, 1e-12)


def in_words(found: Objects, names: list[str]) -> str:
    """Return the objects as "person 0.91, car 0.80"; those of the truth without scores."""
    if not len(found.boxes):
        return "no object" if found.scores is None else "nothing found"
    if found.scores is None:
        return ", ".join(names[kind] for kind in found.classes)
    return ", ".join(f"{names[kind]} {score:.2f}" for kind, score in zip(found.classes, found.scores, strict=True))


def shares(labels: np.ndarray, names: list[str]) -> str:
    """Return the classes with the largest shares of a label map, as "road 45 %, car 20 %"."""
    counts = np.bincount(labels[labels != IGNORED].ravel(), minlength=len(names))
    order = [kind for kind in np.argsort(-counts, kind="stable")[:SHARES] if counts[kind]]
    named = [f"{names[kind].strip()} {100 * counts[kind] / counts.sum():.0f} %" for kind in order]
    return ", ".join(named) or "nothing labelled"


def accuracy(found: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the share of labelled pixels with the right class, in per cent; None if there are none."""
    known = truth != IGNORED
    return 100 * float((found == truth)[known].mean()) if known.any() else None
