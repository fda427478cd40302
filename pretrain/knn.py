"""k-NN classifier on features, and its accuracy.

Shapes: n training samples, m other samples, C channels, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 20
TEMPERATURE = 0.07


def knn(train: Tensor, labels: Tensor, others: Tensor, classes: int, k: int = NEIGHBOURS) -> Tensor:
    """Classify ``others`` (m, C) by a weighted vote of their ``k`` nearest neighbours in ``train`` (n, C): (m,).

    Similarity is the cosine. A vote has the weight e^(cos/0.07) (Wu et al., arXiv 1805.01978, Section 3.4). If there
    are fewer than ``k`` training samples, all of them vote.
    """
    train, found = F.normalize(train, dim=1), []
    for some in F.normalize(others, dim=1).split(1024):  # limits the size of the (m, n) matrix
        cosine, nearest = (some @ train.T).topk(min(k, len(train)), dim=1)
        weight = ((cosine - 1) / TEMPERATURE).exp()
        votes = weight.new_zeros(len(some), classes).scatter_add_(1, labels[nearest], weight)
        found.append(votes.argmax(1))
    return torch.cat(found)


def top1(predicted: Tensor, labels: Tensor) -> float:
    """Return the accuracy in per cent."""
    return 100 * (predicted == labels).double().mean().item()
