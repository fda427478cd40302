"""k-NN classifier on features, and its accuracy.

Shapes: n training samples, m other samples, C channels, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 20
TEMPERATURE = 0.07
KNOWN, ASKED = 4096, 1024
"""Numbers of training samples and of others that are compared at a time."""


def knn(
    train: Tensor,
    labels: Tensor,
    others: Tensor,
    classes: int,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Classify ``others`` (m, C) by a weighted vote of their ``k`` nearest neighbours in ``train`` (n, C): (m,).

    Similarity is the cosine. A vote has the weight e^(cos/temperature) (Wu et al., arXiv 1805.01978, Section 3.4). If there
    are fewer than ``k`` training samples, all of them vote. Besides the features, little memory is needed: `KNOWN` training
    samples meet `ASKED` others at a time.
    """
    k = min(k, len(train))
    cosine, nearest = others.new_full((len(others), k), -torch.inf), labels.new_zeros(len(others), k)
    asked = [slice(first, first + ASKED) for first in range(0, len(others), ASKED)]
    for first in range(0, len(train), KNOWN):
        known = F.normalize(train[first : first + KNOWN], dim=1)
        for some in asked:
            best, place = (F.normalize(others[some], dim=1) @ known.T).topk(min(k, len(known)), dim=1)
            cosine[some], order = torch.cat([cosine[some], best], dim=1).topk(k, dim=1)
            nearest[some] = torch.cat([nearest[some], place + first], dim=1).gather(1, order)
    predicted = labels.new_empty(len(others))
    for some in asked:
        weight = ((cosine[some] - 1) / temperature).exp()
        votes = weight.new_zeros(len(weight), classes).scatter_add_(1, labels[nearest[some]], weight)
        predicted[some] = votes.argmax(1)
    return predicted


def top1(predicted: Tensor, labels: Tensor) -> float:
    """Return the accuracy in per cent."""
    return 100 * (predicted == labels).double().mean().item()
