from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from held_splits import run, split
from scipy.ndimage import gaussian_filter

from pixbench.errors import UserError
from transfer.frozen.method import Split
from transfer.frozen.methods import foreground
from transfer.frozen.methods.foreground import Overlap, Settings, chosen_threshold, evaluate, salient_cells, views

SETTINGS = Settings(clusters=8, components=2, iterations=30, restarts=5, background=(0.5, 1), compare_at=40)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def squares(images: int, seed: int) -> Split:
    """Scenes of 10 × 10 cells with a square of class 1 that has other features than the rest."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((images, 10, 10), int)
    for one in truth:
        y, x = rng.integers(0, 6, 2)
        one[y : y + 4, x : x + 4] = 1
    features = np.where(truth[..., None], [6.0, 1.0], [-0.5, 0.2]) + 0.05 * rng.normal(size=(*truth.shape, 2))
    return split(list(features), list(truth.repeat(8, 1).repeat(8, 2)), 2)


def test_the_cells_with_most_of_the_saliency_are_taken_and_islands_removed() -> None:
    features = torch.full((8, 8, 1), -1.0)
    features[1:4, 1:4] = 5.0
    features[6, 6] = 5.0
    found = salient_cells(features, replace(SETTINGS, blur=0.01, mass=0.999))
    assert found.nonzero().tolist() == [[y, x] for y in (1, 2, 3) for x in (1, 2, 3)]
    kept = salient_cells(features, replace(SETTINGS, blur=0.01, mass=0.999, smallest=1))
    assert kept.sum() == 10
    assert not salient_cells(torch.zeros(8, 8, 1), SETTINGS).any()


def test_saliency_is_the_likeness_to_the_cell_that_resembles_the_fewest() -> None:
    features = torch.randn(9, 9, 3, dtype=torch.float64)
    cells = features.numpy()
    flat = cells.reshape(81, 3)
    seed = min(range(81), key=lambda one: (flat @ flat[one] > 0).sum())
    scores = np.maximum(cells @ flat[seed], 0)
    blurred = gaussian_filter(scores, 0.6, mode="mirror", truncate=3 / 0.6)
    order = blurred.ravel().argsort()
    kept = np.zeros(81, bool)
    kept[order] = blurred.ravel()[order].cumsum() / blurred.sum() > 1 - 0.65
    found = salient_cells(features, replace(SETTINGS, smallest=1))
    assert np.array_equal(found.numpy().ravel(), kept)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    assert torch.equal(salient_cells(features @ turn, SETTINGS), salient_cells(features, SETTINGS))


def test_jaccard_and_precision_by_hand() -> None:
    """Two images of ten pixels, three clusters."""
    areas = torch.tensor([[4, 6, 0], [2, 3, 5]])
    hits = torch.tensor([[3, 1, 0], [0, 0, 5]])
    found = Overlap(areas, hits, torch.tensor([4, 5]))
    assert found.precisions().tolist() == pytest.approx([(3 / 4 + 0) / 2, (1 / 6 + 0) / 2, 1])
    assert found.jaccard(torch.tensor([True, False, False])) == pytest.approx(100 * (3 / 5 + 0 / 7) / 2)
    assert found.jaccard(torch.tensor([True, False, True])) == pytest.approx(100 * (3 / 5 + 5 / 7) / 2)


def test_the_threshold_is_the_rounded_precision_of_the_best_division() -> None:
    precisions = torch.tensor([0.1, 0.83, 0.42, 0.2])
    labelled = Overlap(torch.tensor([[5, 5, 5, 5]]), torch.tensor([[0, 5, 5, 0]]), torch.tensor([10]))
    assert chosen_threshold(precisions, labelled, (0.25, 1)) == pytest.approx(0.4)  # the two best clusters
    assert chosen_threshold(precisions, labelled, (0.75, 1)) == pytest.approx(0.85)
    with pytest.raises(UserError, match="no number of 4 clusters lies between"):
        chosen_threshold(precisions, labelled, (0.55, 0.7))


def test_objects_that_stand_out_are_found() -> None:
    measured = evaluate({"train": squares(10, 0), "test": squares(6, 1)}, SETTINGS, run())
    samples = measured.kept.arrays["samples"]
    assert samples["classes"].tolist() == ["background", "foreground"]
    assert samples["colours"].any(1).tolist() == [False, True]
    values = measured.kept.arrays["images"]["Jaccard"]
    for number, name in enumerate(samples["images"].tolist()):
        truth, found = (samples[f"{what}_{number}"] > 0 for what in ("truth", "found"))
        assert 100 * (truth & found).sum() / (truth | found).sum() == pytest.approx(values[int(name)], abs=1)
    assert measured.metrics["Jaccard"] > 95
    assert measured.facts["all_foreground"] == pytest.approx(16)
    assert measured.deviations == (foreground.SALIENCY,)
    empty = squares(6, 1)
    noise = replace(empty.features, cells=torch.randn(600, 2, dtype=torch.float64))
    blind = evaluate({"train": squares(10, 0), "test": Split(noise, empty.views)}, SETTINGS, run())
    assert blind.metrics["Jaccard"] < 30


def test_only_the_masks_of_voc_itself_are_used_for_training() -> None:
    whole = squares(4, 0).views
    folders = ["SegmentationClass", "SegmentationClassAug", "SegmentationClassAug", "SegmentationClass"]
    truths = tuple(Path(name) / f"{i}.png" for i, name in enumerate(folders))
    mixed = replace(whole, pictures=replace(whole.scenes, truths=truths))
    assert [path.stem for path in views("train", mixed, SETTINGS, 0).scenes.pictures] == ["0", "3"]
    assert views("test", mixed, SETTINGS, 0) is mixed
    assert views("train", whole, SETTINGS, 0) == whole
