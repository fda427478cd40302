from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from held_splits import one_hot, random_split, run, split

from pixbench.errors import UserError
from transfer.frozen.method import Split
from transfer.frozen.methods.overcluster import Settings, evaluate, matched, resized

SETTINGS = Settings(clusters=12, components=4, iterations=30, restarts=3, runs=2, batch=1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def reference(gt: np.ndarray, clusters: np.ndarray, k: int, classes: int) -> float:
    """Return mIoU after matching, pixel by pixel: all permutations if k is the number of classes, else greedily by precision."""

    def miou(mapping: list[int]) -> float:
        guess = np.array(mapping)[clusters]
        each = []
        for c in range(classes):
            union = ((gt == c) | (guess == c)).sum()
            each.append(((gt == c) & (guess == c)).sum() / union if union else 0.0)
        return 100 * float(np.mean(each))

    def iou(c: int, cluster: int) -> float:
        union = ((gt == c) | (clusters == cluster)).sum()
        return float(((gt == c) & (clusters == cluster)).sum() / max(union, 1))

    if k == classes:
        best = max(permutations(range(classes)), key=lambda p: sum(iou(c, i) for i, c in enumerate(p)))
        return miou(list(best))
    precise = []
    for cluster in range(k):
        of = clusters == cluster
        scores = [(of & (gt == c)).sum() / max(of.sum(), 1e-8) for c in range(classes)]
        precise.append(int(np.argmax(scores)))
    return miou(precise)


@pytest.mark.parametrize("k", [4, 9])
def test_matching_is_that_of_a_reference_by_pixels(k: int) -> None:
    rng = np.random.default_rng(k)
    gt = rng.integers(0, 4, 400)
    clusters = np.where(rng.random(400) < 0.4, gt, rng.integers(0, k - 1, 400))  # the last one stays empty
    counts = np.zeros((k, 4), int)
    np.add.at(counts, (clusters, gt), 1)
    found = matched(torch.from_numpy(counts)).metrics(absent_counts=True)["mIoU"]
    assert found == pytest.approx(reference(gt, clusters, k, 4), abs=1e-9)


def test_three_clusters_and_two_classes() -> None:
    """Clusters 0 and 2 become class 0, 1 becomes class 1: IoU 7/9 and 4/6."""
    confusion = matched(torch.tensor([[4, 1], [1, 4], [3, 0]]))
    assert confusion.counts.tolist() == [[7, 1], [1, 4]]
    assert confusion.iou().tolist() == pytest.approx([700 / 9, 400 / 6])


def test_as_many_clusters_as_classes_get_one_each() -> None:
    """Both clusters have most pixels of class 0, but only one may have it."""
    assert matched(torch.tensor([[6, 1], [9, 0]])).counts.tolist() == [[9, 6], [0, 1]]


def test_maps_are_resized_like_the_public_code_does() -> None:
    numbers = torch.tensor([[0, 1, 2, 3]]).repeat(2, 1)
    assert resized(numbers, (1, 3)).tolist() == [[0, 1, 2]]  # floor of 0, 4/3, 8/3
    assert resized(numbers, (2, 8))[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("score_at", ["full", "input", 100])
def test_perfect_features_give_100(score_at: str | int) -> None:
    test = one_hot(6, 5, 8, 4, 0)
    measured = evaluate({"test": test}, replace(SETTINGS, components=3, score_at=score_at), run())
    samples = measured.kept.arrays["samples"]
    assert len(samples["images"]) == min(6, len(test))
    for number in range(len(samples["images"])):
        truth, found = samples[f"truth_{number}"], samples[f"found_{number}"]
        assert ((found == truth) | (truth == 255)).all()
    assert measured.metrics == {"mIoU": 100, "aAcc": 100}
    assert measured.facts["matching"] == "each cluster to the class of most of its pixels"


def test_each_seed_counts_and_an_ignored_class_has_an_iou_of_0() -> None:
    test = one_hot(6, 5, 8, 4, 0)
    settings = replace(SETTINGS, components=3, ignored_is_class=True)
    measured = evaluate({"test": test}, settings, run(3))
    assert measured.metrics["mIoU"] == pytest.approx(80)
    assert list(measured.facts["runs"]) == ["6", "7"]
    five = evaluate({"test": test}, replace(settings, clusters=5, restarts=20), run())
    assert five.facts["matching"] == "Hungarian"


def test_random_features_give_chance() -> None:
    """With 12 clusters that say nothing, almost all pixels get the most frequent class."""
    test = one_hot(40, 5, 8, 4, 0)
    noise = torch.randn(len(test.features.cells), 4, dtype=torch.float64)
    blind = Split(replace(test.features, cells=noise), test.views)
    assert evaluate({"test": blind}, SETTINGS, run()).metrics["mIoU"] == pytest.approx(100 / 7, abs=6)


def test_images_that_fill_no_batch_are_left_out() -> None:
    test = random_split(7, 4, 8, 4, 3, 0)
    assert evaluate({"test": test}, replace(SETTINGS, batch=3), run()).facts["test_images"] == 6
    with pytest.raises(UserError, match="has 7 images, which do not fill a batch"):
        evaluate({"test": test}, replace(SETTINGS, batch=60), run())
    with pytest.raises(UserError, match="112 cells, fewer than the 500 clusters"):
        evaluate({"test": test}, replace(SETTINGS, clusters=500), run())


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_ragged_maps_and_inputs_that_are_no_whole_cells(stride: int) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(3 + index % 2, 5, 4)) for index in range(6)]
    labels = [rng.integers(0, 2, (one.shape[0] * stride - 3, one.shape[1] * stride - 5)) for one in maps]
    measured = evaluate({"test": split(maps, labels, 2)}, SETTINGS, run())
    assert 0 < measured.metrics["mIoU"] < 100
