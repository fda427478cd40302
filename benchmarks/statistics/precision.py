"""Average precision of many draws of images at once, from the matches that results store.

Legend: I images, K classes, T thresholds of IoU, D detections, R draws, P right detections of a class.

An image that is drawn twice counts each of its detections and objects twice. So a draw changes only the weights of the
detections and never their order, and precision is needed only where a detection is right. For one draw of each image, the
numbers are those of pycocotools and of Detectron2's VOC evaluation; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Draws = NDArray
"""(R, I): how often each image is drawn."""
RECALLS = {"coco": np.linspace(0, 1, 101), "voc07": np.arange(0, 1.1, 0.1)}
"""Rule -> values of recall at which precision is averaged; the rule "voc12" takes the area below the curve instead."""


def average_precision_of(arrays: Mapping[str, NDArray], order: NDArray) -> Callable[[Draws], NDArray]:
    """Return the function of draws that gives AP in per cent (R,): the mean over thresholds and over classes with objects.

    Args:
        arrays: matches, as `pixbench.results.per_image` describes them.
        order: places of the I images of a draw in "images" of ``arrays``.
    """
    truths, rule = np.asarray(arrays["truths"], float)[order], str(arrays["rule"])
    curves = [(kind, right, wrong) for kind, right, wrong in _curves(arrays, np.argsort(order))]
    thresholds = len(arrays["thresholds"])

    def average(draws: Draws) -> NDArray:
        objects = draws @ truths  # (R, K)
        total = np.zeros(objects.shape)
        for kind, right, wrong in curves:
            total[:, kind] += _area(draws[:, right], (wrong @ draws.T).T, objects[:, kind], rule)
        with np.errstate(invalid="ignore"):
            classes = np.where(objects > 0, 100 * total / thresholds, np.nan)
            found: NDArray = np.nansum(classes, axis=1) / (objects > 0).sum(1)
        return found

    return average


def _curves(arrays: Mapping[str, NDArray], place: NDArray) -> Iterator[tuple[int, NDArray, sparse.csr_array]]:
    """Yield for each class and threshold the image of each right detection (P,), by falling score, and the wrong ones before it.

    These are a matrix (P, I): how many wrong detections of each image stand between this right one and the one before.
    """
    image = place[arrays["image"]]
    for kind in range(arrays["truths"].shape[1]):
        some = np.flatnonzero(arrays["class"] == kind)
        if str(arrays["rule"]) == "coco":  # equal scores stand in the order of the images
            some = some[np.argsort(arrays["image"][some], kind="stable")]
        some = some[np.argsort(-arrays["score"][some], kind="stable")]
        for at in range(len(arrays["thresholds"])):
            right = arrays["right"][some, at]
            wrong = ~right & ~arrays["ignored"][some, at]
            behind = np.cumsum(right)  # the number of the next right one
            count = int(right.sum())
            wrong &= behind < count
            entries = np.ones(np.count_nonzero(wrong)), (behind[wrong], image[some[wrong]])
            if count:
                yield kind, image[some[right]], sparse.csr_array(entries, shape=(count, len(place)))


def _area(right: NDArray, wrong: NDArray, objects: NDArray, rule: str) -> NDArray:
    """Return AP (R,) as a share, from weights of right detections and of the wrong ones before each (R, P)."""
    right, wrong = np.cumsum(right, axis=1), np.cumsum(wrong, axis=1)
    recall = right / np.maximum(objects, 1)[:, None]
    precision = right / np.maximum(right + wrong, np.finfo(float).eps)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best from here on
    if rule in RECALLS:
        at = RECALLS[rule]
        recall = np.searchsorted(at, recall, side="right") / len(at)  # share of the values that are reached
    found: NDArray = (np.diff(recall, axis=1, prepend=0) * precision).sum(1)
    return found
