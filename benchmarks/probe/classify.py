"""Classifiers on frozen features.

Shapes: n training samples, m other samples, C channels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 20
TEMPERATURE = 0.07
L2 = 1e-3
ITERATIONS = 200


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


@dataclass(frozen=True)
class Linear:
    """A linear classifier on standardised features."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    """(K, C)."""
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (m, K) of ``features`` (m, C)."""
        return F.linear((features - self.mean) / self.std, self.weight, self.bias)


def fit_linear(features: Tensor, labels: Tensor, classes: int) -> Linear:
    """Fit multinomial logistic regression on standardised ``features`` (n, C) with full-batch L-BFGS from zero.

    It minimises mean cross-entropy + 0.5 · 1e-3 · ‖weight‖². The problem is convex, so the result needs no seed.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    # a constant channel carries no information
    std = torch.where(std > 1e-6 * std.max(), std, std.max().clamp(min=1e-12))
    inputs = (features - mean) / std
    weight = features.new_zeros(classes, features.shape[1]).requires_grad_()
    bias = features.new_zeros(classes).requires_grad_()
    solver = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(inputs, weight, bias), labels) + 0.5 * L2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return Linear(mean, std, weight.detach(), bias.detach())


def top1(predicted: Tensor, labels: Tensor) -> float:
    """Return the accuracy in per cent."""
    return 100 * (predicted == labels).double().mean().item()
