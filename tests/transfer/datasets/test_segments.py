"""Polygons, run lengths and keypoints, compared with pycocotools."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from transfer.datasets.segments import Mask, _uncompressed, apart, look_at_keypoints, look_at_mask, overlap

SIZE = (50, 30)


def look(value: Any, size: tuple[int, int] = SIZE) -> Mask:
    return look_at_mask(json.dumps(value).encode(), size)


def runs(values: np.ndarray) -> list[int]:
    """Run lengths of a mask (H, W) down its columns, from a run of zeros."""
    flat = np.concatenate([[0], values.flatten(order="F"), [2]])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], ends])).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_run_lengths_are_those_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 200, 2))
    values = (rng.random((height, width)) < rng.choice([0.001, 0.02, 0.5, 0.999])).astype(np.uint8)
    values[rng.integers(height), rng.integers(width)] = 1
    whole = coco_mask.encode(np.asfortranarray(values))
    assert list(_uncompressed(whole["counts"])) == runs(values)
    x, y, across, down = coco_mask.toBbox(whole)
    for counts in (whole["counts"].decode(), runs(values)):
        found = look({"size": [height, width], "counts": counts}, (width, height))
        assert found == Mask("run lengths", extent=(x, y, x + across, y + down))


@pytest.mark.parametrize("seed", range(10))
def test_text_that_is_no_run_length_is_refused(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = bytes(rng.integers(32, 127, 9).tolist()).decode()
    assert look({"size": [30, 50], "counts": text}).fault


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"size": [50, 30], "counts": [1500]}, "for [height, width] [50, 30], but the picture has [30, 50]"),
        ({"counts": [1500]}, "for [height, width] None"),
        ({"size": [30, 50]}, "not numbers from 0"),
        ({"size": [30, 50], "counts": [1, -1, 1500]}, "not numbers from 0"),
        ({"size": [30, 50], "counts": [1.0, 1499.0]}, "not numbers from 0"),
        ({"size": [30, 50], "counts": [1, 2]}, "of 3 pixels in all, but the picture has 1,500"),
        ({"size": [30, 50], "counts": [1500]}, "without any pixel of the object"),
        ({"size": [30, 50], "counts": "é"}, "cannot be decoded"),
        ({"size": [30, 50], "counts": "o"}, "cannot be decoded"),
        (7, "is not a list of polygons"),
        ([1, 2, 3, 4, 5, 6], "is not a list of polygons"),
        ([[[1, 2], [3, 4], [5, 6]]], "is not a list of polygons"),
        ([[1, 2, 3, 4]], "has no polygon of three points"),
        ([[1, 2, 3, 4, 5, 6], [1, 2]], "has a polygon with an odd number"),
        ([[1, 2, 1e30, 4, 5, 6]], "far out of the picture of 50 × 30"),
    ],
)
def test_each_fault_is_named(value: Any, said: str) -> None:
    assert said in look(value).fault


def test_polygons_and_nothing() -> None:
    assert look([[1, 2, 3, 4.5, 0, 6], [9, 9, 1, 1, 2, 2]]) == Mask("polygons", extent=(0, 1, 9, 9))
    assert look([[1, 2, 3, 4, 5, 6], [1, 2]]).skipped
    for value in (None, [], {}):
        assert look(value) == Mask("none")
    assert look_at_mask(b"", SIZE) == Mask("none")


def test_overlap_is_intersection_over_union() -> None:
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert overlap((0, 0, 1, 1), (5, 5, 6, 6)) == 0
    assert overlap((0, 0, 0, 1), (5, 5, 6, 6)) == -1
    assert [apart((0, 0, 2, 2), (x, 0, 9, 9)) for x in (1, 3, 3.5)] == [False, False, True]


def test_keypoints() -> None:
    good = [3, 4, 2, 0, 0, 0, 5, 1, 1]
    assert look_at_keypoints(json.dumps(good).encode(), 3) == ("", 2, (3, 1, 5, 4))
    assert look_at_keypoints(json.dumps([0] * 9).encode(), 3) == ("", 0, None)
    for value, said in (
        (None, "has no keypoints (3 × (x, y, v))"),
        (good[:-1], "are not 3 × (x, y, v)"),
        ([*good[:-1], 3], "with v 0, 1 or 2"),
        ([*good[:-1], 0.5], "with v 0, 1 or 2"),
        (["3", *good[1:]], "in numbers"),
        ([10**30, *good[1:]], "in numbers"),
        ({"nose": [1, 2, 2]}, "are not 3 × (x, y, v)"),
    ):
        fault, labelled, extent = look_at_keypoints(json.dumps(value).encode(), 3)
        assert said in fault
        assert (labelled, extent) == (0, None)
