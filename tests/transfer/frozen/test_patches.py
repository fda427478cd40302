from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from given_features import labelled
from held_splits import random_split, run, split

from pixbench.errors import UserError
from transfer.frozen import patches
from transfer.frozen.methods import logistic, neighbours
from transfer.frozen.patches import Rows, cells_of, halves, moments
from transfer.frozen.views import need_whole_cells


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def flat(*labels: list[int], zero_ignored: bool = False) -> patches.Cells:
    """Cells of 2 × 2 pixels in one row, one for each list of four labels."""
    rows = np.concatenate([np.array(one).reshape(2, 2) for one in labels], 1)
    return cells_of(split([np.zeros((1, len(labels), 3))], [rows], 3, zero_ignored))


def test_pixels_of_a_cell_are_those_below_it() -> None:
    labels = np.arange(4 * 6).reshape(4, 6)
    cells = cells_of(split([np.zeros((2, 3, 1))], [labels], 30))
    assert cells.labels.tolist()[:2] == [[0, 1, 6, 7], [2, 3, 8, 9]]
    assert cells.labels.tolist()[3] == [12, 13, 18, 19]


def test_the_most_frequent_label_is_the_smallest_number_of_the_file_in_a_tie() -> None:
    ties = [[2, 1, 1, 2], [255, 255, 0, 0], [0, 1, 2, 255]]
    assert flat(*ties).modes.tolist() == [1, 0, 0]
    reduced = flat(*ties, zero_ignored=True)  # the file has 0 for ignored, and classes from 1
    assert reduced.modes.tolist() == [2, 0, 0]
    assert reduced.known.tolist() == [True, False, False]


def test_modes_are_those_of_torch() -> None:
    labels = torch.randint(0, 5, (500, 49), dtype=torch.uint8)
    assert torch.equal(patches._modes(labels), labels.mode(1).values)


def macro(truth: np.ndarray, guess: np.ndarray, ignored: int) -> float:
    """scikit-learn's ``jaccard_score(average="macro")`` without ignored labels, in per cent."""
    truth, guess = truth[truth != ignored], guess[truth != ignored]
    present = np.union1d(truth, guess)
    each = [((truth == c) & (guess == c)).sum() / ((truth == c) | (guess == c)).sum() for c in present]
    return float(100 * np.mean(each))


@pytest.mark.parametrize("zero_ignored", [False, True])
def test_an_ignored_number_that_is_predicted_counts_as_a_class(zero_ignored: bool) -> None:
    cells = flat([0, 0, 0, 1], [255, 1, 1, 1], zero_ignored=zero_ignored)
    first = int(zero_ignored)
    right = cells.labels.clone()
    assert cells.score(right)[0] == 100
    assert cells.score(right)[2][-1].isnan()
    guess = right.clone()
    guess[0, 0] = cells.ignored
    miou, accuracy, *_ = cells.score(guess)
    assert miou == pytest.approx((200 / 3 + 100 + 0) / 3)
    assert miou == pytest.approx(macro(cells.labels.numpy(), guess.numpy(), cells.ignored), abs=1e-9)
    assert accuracy == pytest.approx(100 * 6 / 7)
    absent = right.clone()
    absent[0, 0] = 2 + first  # a class that is labelled nowhere counts as soon as it is predicted
    assert cells.score(absent)[0] == pytest.approx((200 / 3 + 100 + 0) / 3)


def test_predictions_are_resized_to_the_pixels_that_are_scored() -> None:
    cells = flat([0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 255])
    spread = torch.tensor([[0], [1], [2]], dtype=torch.uint8)
    assert cells.score(spread)[0] == cells.score(spread, score_at="full")[0] == 100
    wrong = torch.tensor([[0], [1], [1]], dtype=torch.uint8)
    assert cells.score(wrong)[0] == cells.score(wrong, score_at="full")[0] == pytest.approx((100 + 400 / 7 + 0) / 3)
    assert cells.score(wrong, score_at=12)[0] == pytest.approx((100 + 400 / 7 + 0) / 3)


def test_inputs_that_are_no_whole_cells_are_refused(tmp_path: Path) -> None:
    maps = [np.zeros((2, 2, 1))]
    need_whole_cells(labelled(tmp_path / "whole", maps, [np.zeros((4, 4))], "a", 2).views, 2)
    ragged = labelled(tmp_path / "ragged", maps, [np.zeros((4, 5))], "a", 2).views
    with pytest.raises(UserError, match=r"4 × 5 pixels, .* no multiple of the 2 pixels .* images.size"):
        need_whole_cells(ragged, 2)


def test_one_image_in_ten_is_held_out() -> None:
    fitted, held = halves(25, 3, 10, "set")
    assert (len(fitted), len(held)) == (23, 2)
    assert sorted([*fitted, *held]) == list(range(25))
    np.random.seed(3)
    assert [*held, *fitted] == np.random.permutation(25).tolist()
    with pytest.raises(UserError, match="set has 9 images, but one in 10"):
        halves(9, 0, 10, "set")


def test_moments_are_those_of_all_parts_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "PART", 64)
    cells = torch.randn(201, 5, dtype=torch.float64) * 3 + 100
    cells[:, 2] = 7.5
    chosen = torch.arange(0, 201, 2)
    mean, std = moments(cells, chosen)
    wanted = cells[chosen].numpy()
    np.testing.assert_allclose(mean, wanted.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, np.where(np.arange(5) == 2, 1, wanted.std(0)), rtol=1e-12)


def test_rows_are_the_same_whether_they_are_kept_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cells, chosen = torch.randn(50, 3), torch.arange(1, 50, 2)
    about = (cells, chosen, torch.ones(3), torch.full((3,), 2.0), torch.device("cpu"))
    kept = torch.cat(list(Rows(*about).parts(7)))
    monkeypatch.setattr(patches, "KEPT", 1)
    assert torch.equal(torch.cat(list(Rows(*about).parts(7))), kept)
    assert torch.equal(kept, (cells[chosen] - 1) / 2)


@pytest.mark.parametrize("method", [neighbours, logistic])
def test_held_out_pictures_without_a_label_are_named(method: ModuleType) -> None:
    whole = random_split(12, 3, 2, 4, 2, 0)
    _, held = halves(12, 0, 10, "some")
    maps, labels = ([read(index) for index in range(12)] for read in (whole.features.map, whole.views.labels))
    labels = [np.full_like(one, 255) if index in held else one for index, one in enumerate(labels)]
    train = split([one.numpy() for one in maps], labels, 2)
    with pytest.raises(
        UserError, match=r"^the held-out training pictures \(one in 10: settings\.held_out\) have no labelled"
    ):
        method.evaluate({"train": train, "test": whole}, method.Settings(), run())
