"""The true objects that detection runs keep, from annotations in Detectron2's form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.frameworks
FOUND = {"masks": np.zeros((0, 10, 20), bool), "keypoints": np.zeros((0, 17, 3), np.float32)}


def thing(**more: Any) -> dict[str, Any]:
    return {"bbox": [2, 1, 8, 4], "bbox_mode": 1, "category_id": 3, **more}  # x, y, width, height


def test_keypoints_are_flat_as_in_coco_and_crowds_are_left_out() -> None:
    from transfer.detection.samples import of_annotations

    square = [[2.0, 1.0, 10.0, 1.0, 10.0, 5.0, 2.0, 5.0]]
    points = [float(number % 3 + 1) for number in range(51)]
    things = [thing(segmentation=square, keypoints=points), thing(iscrowd=1)]
    given = {"truth": things, "height": 10, "width": 20}
    truth = of_annotations(given, FOUND)
    assert truth["boxes"].tolist() == [[2, 1, 10, 5]]
    assert truth["classes"].tolist() == [3]
    assert truth["masks"].shape == (1, 10, 20)
    assert truth["masks"].sum() == 32
    assert truth["keypoints"].tolist() == [[[1, 2, 3]] * 17]
    assert things[0]["keypoints"] is points  # the annotations stay as they are


def test_only_what_a_run_predicts_is_kept_and_no_object_is_no_error() -> None:
    from transfer.detection.samples import of_annotations

    given = {"truth": [thing(segmentation=[[0.0] * 6]), thing()], "height": 10, "width": 20}
    assert {*of_annotations(given, {})} == {*of_annotations(given, FOUND)} == {"boxes", "classes"}
    assert of_annotations({**given, "truth": []}, FOUND)["boxes"].shape == (0, 4)
