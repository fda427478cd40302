"""Scores of label maps by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixbench.errors import UserError
from transfer.datasets.classes import Classes
from transfer.datasets.mask_numbers import IGNORED, Numbering
from transfer.frozen.scenes import Scenes
from transfer.frozen.scoring import Confusion, labels_to_score, predicted
from transfer.frozen.views import Images, Views

LABELS = torch.tensor([[0, 0, 1], [1, IGNORED, IGNORED]])
GUESSED = torch.tensor([[0, 1, 1], [1, 2, 0]])


def test_iou_by_hand() -> None:
    """Class 0: 1 of 2; class 1: 2 of 3; ignored pixels do not count, whatever is predicted there."""
    confusion = Confusion(3)
    confusion.add(LABELS.numpy(), GUESSED)
    assert confusion.counts.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    iou = confusion.iou()
    assert iou[:2].tolist() == pytest.approx([50, 200 / 3])
    assert math.isnan(iou[2])
    assert confusion.metrics() == pytest.approx({"mIoU": (50 + 200 / 3) / 2, "aAcc": 75})
    assert confusion.metrics(absent_counts=True)["mIoU"] == pytest.approx((50 + 200 / 3) / 3)


def test_a_class_that_is_predicted_only_counts_as_missed() -> None:
    confusion = Confusion(2)
    confusion.add(torch.tensor([0, 0]), torch.tensor([0, 1]))
    assert confusion.metrics() == pytest.approx({"mIoU": 25, "aAcc": 50})


def test_pictures_add_up() -> None:
    parts, whole = Confusion(3), Confusion(3)
    for row in range(2):
        parts.add(LABELS[row], GUESSED[row])
    whole.add(LABELS, GUESSED)
    assert torch.equal(parts.counts, whole.counts)


def test_without_a_labelled_pixel_there_is_nothing_to_score() -> None:
    confusion = Confusion(3)
    confusion.add(torch.full((4, 4), IGNORED), torch.zeros(4, 4))
    with pytest.raises(UserError, match="no pixel of the test pictures is labelled"):
        confusion.metrics()


@pytest.mark.parametrize("classes", [2, 7])
def test_chance_is_what_chance_gives(classes: int) -> None:
    """Each class and each prediction as frequent as any other: 1 / K of the pixels, and an IoU of 1 / (2 K - 1)."""
    confusion, pairs = Confusion(classes), torch.cartesian_prod(torch.arange(classes), torch.arange(classes))
    confusion.add(pairs[:, 0], pairs[:, 1])
    assert confusion.metrics() == pytest.approx({"mIoU": 100 / (2 * classes - 1), "aAcc": 100 / classes})


def test_shares_are_interpolated_before_the_largest_is_taken() -> None:
    """Two cells of 0.9 and 0.2 for class 0: between their middles, the largest changes where a straight line crosses 0.5."""
    shares = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]])
    found = predicted(shares, (1, 200))[0]
    middles = 50 + 100 * (0.9 - 0.5) / (0.9 - 0.2)
    assert found.sum().item() == 200 - round(middles)
    assert torch.equal(found, found.sort().values)


@pytest.fixture
def views(tmp_path: Path) -> Views:
    """One picture of 8 × 4 pixels, two halves."""
    labels = np.repeat([[1, 2]], 4, 1).repeat(4, 0).astype(np.uint8)
    labels[0] = 0
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.new("RGB", (8, 4)).save(tmp_path / "picture.png")
    scenes = Scenes(
        "x", (tmp_path / "picture.png",), (tmp_path / "labels.png",), Numbering(Classes(("a", "b"), "x"), True)
    )
    return Views(scenes, Images(16))


def test_where_scores_are_taken(views: Views) -> None:
    full = labels_to_score(views, 0, "full")
    assert full.tolist() == [[IGNORED] * 8, *[[0] * 4 + [1] * 4] * 3]  # 0 of the file is ignored
    at_input = labels_to_score(views, 0, "input")
    assert at_input.shape == (16, 16)
    assert (at_input[:4] == IGNORED).all()
    assert (at_input[4:, 8:] == 1).all()
    assert labels_to_score(views, 0, 2).tolist() == [[0, 1], [0, 1]]  # the label in the middle of each pixel
