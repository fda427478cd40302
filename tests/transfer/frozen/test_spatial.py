"""Pure cells and the curve of cosines, by hand and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transfer.frozen.spatial import KINDS, Curve, pure_cells, regions_of


def flood(labels: np.ndarray) -> np.ndarray:
    """Number the connected regions of equal labels, ignored ones 0."""
    found, count = np.zeros(labels.shape, int), 0
    for start in zip(*np.where(labels != 255), strict=True):
        if found[start]:
            continue
        count += 1
        todo = [start]
        while todo:
            y, x = todo.pop()
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if inside and not found[y, x] and labels[y, x] == labels[start]:
                found[y, x] = count
                todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return found


def plain_curve(
    features: np.ndarray, labels: np.ndarray, stride: int, purity: float, distances: int
) -> dict[str, list[list[float]]]:
    """Return the cosines of each kind and distance, with loops over all pairs of cells; class 0 is the background."""
    height, width = features.shape[:2]
    regions, cells = flood(labels), {}
    for y in range(height):
        for x in range(width):
            part = regions[y * stride : (y + 1) * stride, x * stride : (x + 1) * stride].ravel().tolist()
            best = max(set(part) - {0}, key=part.count, default=0)
            if best and part.count(best) >= purity * stride**2:
                cells[y, x] = best, int(labels[regions == best][0])
    found: dict[str, list[list[float]]] = {kind: [[] for _ in range(distances)] for kind in KINDS}
    for (y, x), (region, label) in cells.items():
        for dy, dx in [(d, 0) for d in range(1, distances + 1)] + [(0, d) for d in range(1, distances + 1)]:
            if (y + dy, x + dx) in cells:
                a, b = features[y, x], features[y + dy, x + dx]
                cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                region2, label2 = cells[y + dy, x + dx]
                kind = "across" if label != label2 else "inside" if label else "outside"
                if kind == "across" or region == region2:
                    found[kind][dy + dx - 1].append(cosine)
    return found


def blocks(seed: int, rows: int, columns: int, side: int) -> np.ndarray:
    """Return a label map of random blocks of three classes, some ignored, with a ragged edge."""
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.choice([0, 1, 2, 255], (rows, columns), p=[0.3, 0.35, 0.25, 0.1]), np.ones((side, side), int))
    return labels[:-3, :-5].astype(np.uint8)


def test_three_patches_by_hand() -> None:
    features = torch.tensor([[[1.0, 0], [0.6, 0.8], [0, 1]]])
    curve = Curve(4)
    curve.add(features, np.array([[1, 1, 2]]), np.array([[5, 5, 7]]), None)
    assert curve.mean("inside")[:2] == pytest.approx([0.6, np.nan], nan_ok=True)
    assert curve.mean("across")[:2] == pytest.approx([0.8, 0.0])
    assert curve.counts["inside"].tolist() == [1, 0, 0, 0]
    assert curve.counts["across"].tolist() == [1, 1, 0, 0]
    assert curve.sensitivity() == pytest.approx(0.6 - 0.8)  # at distance 2 nothing is inside
    assert curve.smoothness() == pytest.approx(0.6)
    assert curve.as_list(16)[1] == {
        **{"cells": 2, "pixels": 32, "inside": pytest.approx(np.nan, nan_ok=True), "across": 0.0},
        **{"outside": pytest.approx(np.nan, nan_ok=True), "inside_pairs": 0, "across_pairs": 1, "outside_pairs": 0},
    }


def test_background_is_outside_and_two_regions_of_a_class_are_no_pair() -> None:
    curve = Curve(1)
    curve.add(torch.ones(1, 5, 2), np.array([[1, 1, 2, 3, -1]]), np.array([[0, 0, 4, 4, 4]]), 0)
    assert {kind: curve.counts[kind].tolist() for kind in KINDS} == {"inside": [0], "across": [1], "outside": [1]}


def test_regions_by_hand() -> None:
    labels = np.array([[1, 1, 255], [2, 1, 1], [1, 2, 2]], np.uint8)
    regions, classes = regions_of(labels)
    assert regions.tolist() == [[1, 1, 0], [3, 1, 1], [2, 4, 4]]  # corners do not connect
    assert classes.tolist() == [255, 1, 1, 2, 2]


@pytest.mark.parametrize(("stride", "purity"), [(8, 0.9), (16, 0.6), (32, 1.0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_that_of_plain_loops(stride: int, purity: float, seed: int) -> None:
    labels = blocks(seed, 6, 7, 20)
    shape = (-(-labels.shape[0] // stride), -(-labels.shape[1] // stride))
    features = np.random.default_rng(seed).normal(size=(*shape, 6)) + 0.3
    curve = Curve(4)
    curve.add(torch.from_numpy(features), *pure_cells(labels, shape, stride, purity), 0)
    expected = plain_curve(features, labels, stride, purity, 4)
    for kind in KINDS:
        assert curve.counts[kind].tolist() == [len(some) for some in expected[kind]]
        means = [np.mean(some) if some else np.nan for some in expected[kind]]
        assert curve.mean(kind) == pytest.approx(means, abs=1e-9, nan_ok=True)


def test_a_map_may_be_smaller_than_its_input() -> None:
    labels = np.ones((37, 45), np.uint8)  # a ViT leaves out what is less than a patch
    regions, classes = pure_cells(labels, (2, 2), 16, 1.0)
    assert (regions == 1).all()
    assert (classes == 1).all()


def test_labels_as_features_are_perfect() -> None:
    labels = blocks(7, 6, 6, 32)
    regions, classes = pure_cells(labels, (11, 11), 16, 0.9)
    curve = Curve(3)
    curve.add(torch.eye(256, dtype=torch.float64)[classes], regions, classes, None)
    assert curve.smoothness() == pytest.approx(1)
    assert curve.sensitivity() == pytest.approx(1)


def test_equal_features_are_smooth_and_not_sensitive() -> None:
    labels = blocks(7, 6, 6, 32)
    curve = Curve(3)
    curve.add(torch.ones(11, 11, 4), *pure_cells(labels, (11, 11), 16, 0.9), None)
    assert curve.smoothness() == pytest.approx(1)
    assert curve.sensitivity() == pytest.approx(0, abs=1e-12)


def test_a_rotation_and_the_length_of_features_change_nothing() -> None:
    rng, labels = np.random.default_rng(2), blocks(3, 6, 6, 20)
    features = rng.normal(size=(8, 8, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    cells = pure_cells(labels, (8, 8), 16, 0.7)
    curves = [Curve(4), Curve(4), Curve(4)]
    for curve, some in zip(curves, (features, features @ turn, features * rng.random((8, 8, 1))), strict=True):
        curve.add(torch.from_numpy(some), *cells, 0)
    for curve in curves[1:]:
        assert curve.mean("across") == pytest.approx(curves[0].mean("across"), abs=1e-9, nan_ok=True)


def test_nothing_labelled_and_one_cell_give_nan() -> None:
    for labels, shape in ((np.full((32, 32), 255, np.uint8), (2, 2)), (np.ones((16, 16), np.uint8), (1, 1))):
        curve = Curve(8)
        curve.add(torch.ones(*shape, 3), *pure_cells(labels, shape, 16, 0.9), 0)
        assert math.isnan(curve.smoothness())
        assert math.isnan(curve.sensitivity())
