"""Which detections are right, image by image, and average precision from that.

The matches are those that pycocotools and Detectron2's VOC evaluation make; AP is computed by their functions too.

Shapes: I images, K classes, T thresholds of IoU, D detections.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
"""What `pixbench.results.per_image` describes for AP: "images", "classes", "thresholds", "rule", "truths" (I, K), and of each
detection "image", "class", "score" (D,), "right" and "ignored" (D, T). Detections of a class stand together."""


def of_coco(evaluation: Any, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the matches in a pycocotools ``COCOeval`` that has evaluated objects of all sizes first."""
    setting = evaluation.params
    images, areas, thresholds = len(setting.imgIds), len(setting.areaRng), len(setting.iouThrs)
    truths = np.zeros((images, len(setting.catIds)), np.int32)
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "class", "score", "right", "ignored")}
    for kind in range(len(setting.catIds)):
        for image in range(images):
            one = evaluation.evalImgs[(kind * areas) * images + image]
            if one is None:
                continue
            truths[image, kind] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)
            ignored, count = np.asarray(one["dtIgnore"], bool).reshape(thresholds, -1).T, len(one["dtScores"])
            matched = np.asarray(one["dtMatches"]).reshape(thresholds, -1).T != 0
            found["image"].append(np.full(count, image, np.int32))
            found["class"].append(np.full(count, kind, np.int32))
            found["score"].append(np.asarray(one["dtScores"], np.float64))
            found["right"].append(matched & ~ignored)
            found["ignored"].append(ignored)
    about = {"images": np.array([str(name) for name in setting.imgIds], str), "thresholds": np.array(setting.iouThrs)}
    return _together(about, classes, "coco", truths, found, thresholds)


def _together(
    about: dict[str, np.ndarray],
    classes: Sequence[str],
    rule: str,
    truths: np.ndarray,
    found: Mapping[str, Sequence[np.ndarray]],
    thresholds: int,
) -> dict[str, np.ndarray]:
    empty = {name: np.zeros(0, np.int32) for name in ("image", "class")} | {"score": np.zeros(0)}
    empty |= {name: np.zeros((0, thresholds), bool) for name in ("right", "ignored")}
    joined = {name: np.concatenate([empty[name], *parts]) for name, parts in found.items()}
    return {**about, "classes": np.array(classes, str), "rule": np.array(rule), "truths": truths, **joined}


class VocMatches:
    """Notes what Detectron2's ``voc_eval`` finds right and wrong.

    It returns only curves. An object of this class takes the place of numpy in its module, and keeps the order of the
    detections and the marks that it sums up; everything else is numpy's.
    """

    def __init__(self) -> None:
        self.orders: list[np.ndarray] = []
        self.wrong_and_right: list[np.ndarray] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def argsort(self, values: np.ndarray) -> np.ndarray:
        """Return numpy's order, and keep it."""
        self.orders.append(np.argsort(values))
        return self.orders[-1]

    def cumsum(self, values: np.ndarray) -> np.ndarray:
        """Return numpy's sums, and keep what was summed up: first false positives, then true ones."""
        self.wrong_and_right.append(values > 0)
        return np.cumsum(values)

    def arrays(
        self,
        predictions: Mapping[int, Sequence[str]],
        truths: Mapping[str, Sequence[Mapping[str, Any]]],
        classes: Sequence[str],
        rule: str,
    ) -> dict[str, np.ndarray]:
        """Return the matches.

        Args:
            predictions: number of a class -> lines of "image score x1 y1 x2 y2", as given to ``voc_eval``.
            truths: image -> objects with "name", the number of the class as text, and "difficult".
            classes: names of the classes.
            rule: "voc07" or "voc12".
        """
        thresholds = np.arange(50, 100, 5) / 100
        places = {name: place for place, name in enumerate(truths)}
        counts = np.zeros((len(truths), len(classes)), np.int32)
        for name, objects in truths.items():
            for thing in objects:
                counts[places[name], int(thing["name"])] += not thing["difficult"]
        found: dict[str, list[np.ndarray]] = {name: [] for name in ("image", "class", "score", "right", "ignored")}
        for kind in range(len(classes)):
            if not (lines := predictions.get(kind, ())):
                continue
            first = kind * len(thresholds)
            words = [lines[place].split(" ") for place in self.orders[first]]
            marks = self.wrong_and_right[2 * first : 2 * (first + len(thresholds))]
            wrong, right = (np.stack(marks[start::2], axis=1) for start in (0, 1))
            found["image"].append(np.array([places[word[0]] for word in words], np.int32))
            found["class"].append(np.full(len(words), kind, np.int32))
            found["score"].append(np.array([float(word[1]) for word in words]))
            found["right"].append(right)
            found["ignored"].append(~wrong & ~right)
        about = {"images": np.array(list(truths), str), "thresholds": thresholds}
        return _together(about, classes, rule, counts, found, len(thresholds))


def average_precision(arrays: Arrays) -> np.ndarray:
    """Return AP (T, K) in per cent; NaN for a class without an object that counts."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = _coco(arrays) if str(arrays["rule"]) == "coco" else _voc(arrays)
    return np.where(arrays["truths"].sum(0) > 0, found, np.nan)


def averages(arrays: Arrays) -> dict[str, float]:
    """Return "AP", "AP50" and "AP75" in per cent, means over the classes with objects; NaN without any."""
    found = average_precision(arrays)
    return {
        name: float(np.nanmean(found[rows])) if _any(found[rows]) else np.nan for name, rows in _rows(arrays).items()
    }


def by_class(arrays: Arrays) -> dict[str, dict[str, float]]:
    """Return "AP", "AP50" and "AP75" of each class in per cent; NaN for a class without an object."""
    found, names = average_precision(arrays), arrays["classes"].tolist()
    return {name: dict(zip(names, found[rows].mean(0).tolist(), strict=True)) for name, rows in _rows(arrays).items()}


def only(arrays: Arrays, metric: str) -> dict[str, np.ndarray]:
    """Return the matches at the thresholds of ``metric``, whose last part is "AP", "AP50" or "AP75"."""
    rows = _rows(arrays)[metric.rpartition("_")[2]]
    return {**arrays, "thresholds": arrays["thresholds"][rows]} | {
        name: arrays[name][:, rows] for name in ("right", "ignored")
    }


def _rows(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return metric -> which thresholds (T,) it is the mean of."""
    thresholds = arrays["thresholds"]
    return {"AP": thresholds > 0} | {f"AP{at}": np.isclose(thresholds, at / 100) for at in (50, 75)}


def _any(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _coco(arrays: Arrays) -> np.ndarray:
    """Let pycocotools accumulate the matches: precision at 101 values of recall, averaged."""
    from pycocotools.cocoeval import COCOeval, Params

    images, classes = arrays["truths"].shape
    evaluation, setting = COCOeval(), Params("bbox")
    setting.imgIds, setting.catIds = list(range(images)), list(range(classes))
    setting.areaRng, setting.areaRngLbl = setting.areaRng[:1], setting.areaRngLbl[:1]
    setting.iouThrs = np.asarray(arrays["thresholds"])
    evaluation.params = evaluation._paramsEval = setting
    key = arrays["class"].astype(np.int64) * images + arrays["image"]
    order = np.argsort(key, kind="stable")
    borders = np.searchsorted(key[order], np.arange(images * classes + 1))
    evaluation.evalImgs = []
    for kind in range(classes):
        for image in range(images):
            some = order[borders[kind * images + image] : borders[kind * images + image + 1]]
            truths = int(arrays["truths"][image, kind])
            right, ignored = arrays["right"][some].T, arrays["ignored"][some].T
            one = {"dtScores": arrays["score"][some], "dtMatches": right | ignored, "dtIgnore": ignored}
            evaluation.evalImgs.append({**one, "gtIgnore": np.zeros(truths)} if len(some) or truths else None)
    with redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return 100 * evaluation.eval["precision"][:, :, :, 0, -1].mean(1)


def _voc(arrays: Arrays) -> np.ndarray:
    """Compute precision and recall as Detectron2's ``voc_eval``, and let its ``voc_ap`` make one number of them."""
    from detectron2.evaluation.pascal_voc_evaluation import voc_ap

    truths, found = arrays["truths"].sum(0), np.zeros((len(arrays["thresholds"]), arrays["truths"].shape[1]))
    for kind in range(found.shape[1]):
        some = np.flatnonzero(arrays["class"] == kind)
        some = some[np.argsort(-arrays["score"][some], kind="stable")]
        for at in range(len(found)):
            right = np.cumsum(arrays["right"][some, at].astype(np.float64))
            wrong = np.cumsum((~arrays["right"] & ~arrays["ignored"])[some, at].astype(np.float64))
            precision = right / np.maximum(right + wrong, np.finfo(np.float64).eps)
            found[at, kind] = 100 * voc_ap(right / float(truths[kind]), precision, str(arrays["rule"]) == "voc07")
    return found
