"""The k-NN classifier, by hand."""

from __future__ import annotations

import torch

from pretrain.knn import knn, top1


def test_a_vote_is_weighted_by_likeness() -> None:
    train, labels = torch.tensor([[1.0, 0], [0.9, 0.1], [0, 1], [0, 5]]), torch.tensor([2, 2, 0, 1])
    others = torch.tensor([[3.0, 0.1], [0.0, 2]])
    assert knn(train, labels, others, classes=3, k=1).tolist()[0] == 2
    # two nearest of (3, .1) are of class 2; (0, 2) has a tie of 0 and 1, and the first class wins
    assert knn(train, labels, others, classes=3, k=2).tolist() == [2, 0]
    # one very near vote outweighs two far ones
    train, labels = torch.tensor([[1.0, 0], [0, 1], [0, 1]]), torch.tensor([0, 1, 1])
    assert knn(train, labels, torch.tensor([[1.0, 0.1]]), classes=2, k=20).tolist() == [0]


def test_accuracy_is_in_per_cent() -> None:
    assert top1(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 0])) == 75
