"""Average precision of draws of images against pycocotools and Detectron2's VOC evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from made_matches import CLASSES, IMAGES, matches

from benchmarks.statistics.images import over_images
from transfer.detection.matches import averages, only


def drawn(arrays: dict[str, np.ndarray], images: np.ndarray) -> dict[str, np.ndarray]:
    """The same matches of the images with these numbers, which may be named twice; scores of images differ a little."""
    parts = [np.flatnonzero(arrays["image"] == image) for image in images]
    rows = np.concatenate(parts)
    found = {name: arrays[name][rows] for name in ("class", "score", "right", "ignored")}
    found["image"] = np.repeat(np.arange(len(images)), [len(part) for part in parts])
    return {**arrays, **found, "truths": arrays["truths"][images], "images": np.arange(len(images)).astype(str)}


@pytest.mark.parametrize("rule", ["coco", "voc07", "voc12"])
def test_on_all_images_it_is_the_ap_of_the_library(rule: str) -> None:
    arrays = matches(rule, np.random.default_rng(0))
    expected = averages(arrays)
    for metric in ("AP", "AP50", "AP75"):
        assert over_images([only(arrays, f"box_{metric}")]).mean == pytest.approx(expected[metric], abs=1e-9)


@pytest.mark.parametrize("rule", ["coco", "voc12"])
def test_of_a_draw_it_is_the_ap_of_the_library_for_these_images(rule: str) -> None:
    from benchmarks.statistics.precision import average_precision_of

    draw = np.random.default_rng(1)
    arrays = matches(rule, draw)
    arrays["score"] = draw.random(len(arrays["score"]))  # among equal ones, the library takes copies in another order
    for kind in range(CLASSES):
        for image in range(IMAGES):
            some = (arrays["class"] == kind) & (arrays["image"] == image)
            arrays["score"][some] = np.sort(arrays["score"][some])[::-1]
    of = average_precision_of(arrays, np.arange(IMAGES))
    for _ in range(5):
        images = draw.integers(0, IMAGES, IMAGES)
        counts = np.bincount(images, minlength=IMAGES)[None].astype(float)
        expected = averages(drawn(arrays, np.sort(images)))["AP"]
        assert of(counts)[0] == pytest.approx(expected, abs=1e-9)


def test_runs_are_paired_by_the_names_of_the_images() -> None:
    draw = np.random.default_rng(2)
    one = matches("coco", draw)
    turned = {**one, "images": one["images"][::-1], "truths": one["truths"][::-1], "image": IMAGES - 1 - one["image"]}
    found = over_images([one], [turned])
    assert abs(found.mean) < 0.5  # equal scores stand in another order
    alone = over_images([one])
    assert alone.low is not None
    assert alone.high is not None
    assert alone.low < alone.mean < alone.high
    assert found.std is None or found.std < alone.std / 5  # type: ignore[operator]


def test_without_any_detection_or_object_there_is_no_error() -> None:
    empty = matches("coco", np.random.default_rng(3))
    nothing = {name: empty[name][:0] for name in ("image", "class", "score", "right", "ignored")}
    assert over_images([{**empty, **nothing}]).mean == 0
    assert np.isnan(over_images([{**empty, "truths": 0 * empty["truths"]}]).mean)
