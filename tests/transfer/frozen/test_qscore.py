"""Q-scores by hand, and in parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from transfer.frozen import qscore
from transfer.frozen.qscore import auroc, diagnose, scores


def test_auroc_by_hand() -> None:
    assert auroc(np.array([1, 2, 3, 4]), np.array([0, 0, 1, 1])) == 1
    assert auroc(np.array([1, 2, 3, 4]), np.array([1, 1, 0, 0])) == 0
    assert auroc(np.array([1, 2, 2, 3]), np.array([0, 1, 0, 1])) == pytest.approx(3.5 / 4)  # one tie counts half
    assert auroc(np.ones(5), np.array([0, 1, 0, 1, 1])) == 0.5
    assert math.isnan(auroc(np.arange(3), np.zeros(3)))


def test_q_scores_by_hand() -> None:
    h = torch.tensor([[0.0, 0, 0, 4], [2, 2, 2, 2], [0, 0, 0, 0], [1, 3, 0.01, 0]])
    found = scores(h)
    assert found["l1"].tolist() == pytest.approx([4, 8, 0, 4.01])
    # mean 1, std √3
    assert found["z"][:3].tolist() == pytest.approx([3 / 3**0.5, 0, 0])
    assert found["sparsity"].tolist() == [0.75, 0, 0, 0.5]
    assert found["q"][:3].tolist() == pytest.approx([3 / 3**0.5 / 4, 0, 0])
    assert scores(10 * h)["z"] == pytest.approx(found["z"])


def test_scores_by_discriminative_features_by_hand() -> None:
    """101 features, of which each image has 4 at v and the rest at 0: they lie √(97/4) deviations above its mean 4v/101.

    The last image also has feature 0, which 2 of 11 images have: the 95th percentile of the activity is 1/11, so it does
    not count. The 12th image has nothing.
    """
    h = torch.zeros(12, 101)
    for image in range(10):
        h[image, 4 * image : 4 * image + 4] = 101 * (image + 1)
    h[10, [0, 40, 41, 42]] = 101
    found = scores(h)
    assert found["active"].tolist() == [4] * 11 + [0]
    expected = [97 * (image + 1) for image in range(10)] + [97, 0]
    assert found["q_discriminative"].tolist() == pytest.approx(expected)


def test_diagnosis_is_in_the_papers_direction() -> None:
    peaked, level = torch.eye(8)[:3] + 0.01, 2 + 0.1 * torch.rand(3, 8, generator=torch.Generator().manual_seed(0))
    found = diagnose(scores(torch.cat([peaked, level])), np.array([0, 0, 0, 1, 1, 1]))
    assert [found[f"auroc_{name}"] for name in ("l1", "z", "sparsity", "q")] == [1, 1, 1, 1]
    assert found["sparsity_mean"] == pytest.approx(7 / 16)


def test_in_parts_the_scores_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(50, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    whole = scores(features)
    assert 0 < np.count_nonzero(whole["q_discriminative"]) < 50
    monkeypatch.setattr(qscore, "ROWS", 7)
    assert {name: pytest.approx(value) for name, value in scores(features).items()} == whole
