"""The stored matches of detections: AP that is computed again from them is what the frameworks' evaluators gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from transfer.datasets.prepared import Prepared
from transfer.detection.matches import average_precision, averages, by_class
from transfer.job import TransferJob
from transfer.protocols import find_protocol

pytestmark = pytest.mark.frameworks


def noisy(dataset: str, seed: int) -> list[tuple[dict[str, Any], Any]]:
    """Each record with predictions: its objects, moved, some lost, doubled or of another class, with any score."""
    from detectron2.data import DatasetCatalog
    from detectron2.structures import Boxes, BoxMode, Instances

    draw, pairs = np.random.default_rng(seed), []
    for record in DatasetCatalog.get(dataset):
        boxes, classes = [], []
        for thing in record["annotations"]:
            box = BoxMode.convert(thing["bbox"], thing["bbox_mode"], BoxMode.XYXY_ABS)
            for _ in range(draw.integers(0, 3)):
                boxes.append(np.asarray(box) + draw.normal(0, 0.04 * (box[2] - box[0]), 4))
                classes.append(thing["category_id"] if draw.random() < 0.9 else draw.integers(0, 20))
        found = Instances((record["height"], record["width"]))
        found.pred_boxes = Boxes(torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32))
        found.pred_classes = torch.tensor(classes, dtype=torch.int64)
        found.scores = torch.tensor(draw.random(len(classes)), dtype=torch.float32)
        pairs.append((record, found))
    return pairs


def evaluated(name: str, root: Path, out: Path, pairs: Any = None) -> Any:
    from transfer.detection import datasets
    from transfer.detection.evaluators import CocoEvaluator, VocEvaluator

    datasets.register(TransferJob(find_protocol(name), root, out), Prepared())
    dataset = {"voc_c4": "voc_2007_test", "coco_c4_1x": "coco_2017_val"}[name]
    evaluator: Any = (
        VocEvaluator(dataset) if name == "voc_c4" else CocoEvaluator(dataset, ("bbox",), output_dir=str(out))
    )
    evaluator.reset()
    for record, found in noisy(dataset, 3) if pairs is None else pairs:
        evaluator.process([record], [{"instances": found}])
    return evaluator


@pytest.mark.parametrize("name", ["voc_c4", "coco_c4_1x"])
def test_ap_from_the_stored_matches_is_that_of_the_evaluator(name: str, mini_root: Path, tmp_path: Path) -> None:
    evaluator = evaluated(name, mini_root, tmp_path)
    measured = evaluator.evaluate()["bbox"]
    matches = evaluator.kept.arrays["detections_bbox"]
    assert 5 < measured["AP"] < 95
    again = averages(matches)
    assert again == pytest.approx({metric: measured[metric] for metric in again}, rel=1e-9)
    assert evaluator.kept.per_class["bbox/AP"] == pytest.approx(by_class(matches)["AP"], nan_ok=True)
    for label, value in by_class(matches)["AP"].items():
        if f"AP-{label}" in measured:
            assert value == pytest.approx(measured[f"AP-{label}"], nan_ok=True)


def test_a_voc_detection_is_right_wrong_or_ignored_and_an_object_is_found_once(mini_root: Path, tmp_path: Path) -> None:
    evaluator = evaluated("voc_c4", mini_root, tmp_path)
    evaluator.evaluate()
    found = evaluator.kept.arrays["detections_bbox"]
    assert not (found["right"] & found["ignored"]).any()
    assert (np.diff(found["right"].sum(0)) <= 0).all()  # a higher threshold finds no more
    for image in range(len(found["images"])):
        for kind in range(len(found["classes"])):
            of_both = (found["image"] == image) & (found["class"] == kind)
            assert found["right"][of_both].sum(0).max(initial=0) <= found["truths"][image, kind]


def test_the_matches_of_some_images_are_those_of_an_evaluation_of_these_images(mini_root: Path, tmp_path: Path) -> None:
    """This is what a bootstrap over images relies on."""
    evaluator = evaluated("coco_c4_1x", mini_root, tmp_path)
    evaluator.evaluate()
    whole = evaluator.kept.arrays["detections_bbox"]
    chosen = np.arange(0, len(whole["images"]), 2)
    again = evaluated("coco_c4_1x", mini_root, tmp_path)  # a first evaluation changes what it was given
    some = again.evaluate(img_ids=[int(name) for name in whole["images"][chosen]])["bbox"]
    inside = np.isin(whole["image"], chosen)
    part = {name: whole[name][inside] for name in ("class", "score", "right", "ignored")}
    part |= {"image": np.searchsorted(chosen, whole["image"][inside]), "truths": whole["truths"][chosen]}
    assert averages({**whole, **part})["AP"] == pytest.approx(some["AP"])


@pytest.mark.parametrize("name", ["voc_c4", "coco_c4_1x"])
def test_without_any_detection_ap_is_0(name: str, mini_root: Path, tmp_path: Path) -> None:
    evaluator = evaluated(name, mini_root, tmp_path, pairs=())
    if name == "coco_c4_1x":
        evaluator._predictions = [{"image_id": 1, "instances": []}]
    assert evaluator.evaluate()["bbox"]["AP"] == 0
    matches = evaluator.kept.arrays["detections_bbox"]
    assert averages(matches)["AP"] == 0
    assert np.isnan(average_precision(matches)).any()  # classes without an object
