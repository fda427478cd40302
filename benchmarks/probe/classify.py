"""Classifiers on frozen features.

Shapes: n training samples, m other samples, C channels, K classes. The k-NN classifier is `pretrain.knn`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

L2 = 1e-3
ITERATIONS = 200


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
