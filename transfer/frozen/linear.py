"""Classifiers on frozen features.

Shapes: n training samples, m other samples, C channels, K classes. The k-NN classifier is `pretrain.knn`.

Features may fill most of the memory (ImageNet), so nothing here makes a copy of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

L2 = 1e-3
ITERATIONS = 200
PART = 2**25
"""Number of values, features and logits together, that are worked on at a time: 128 MiB in float32."""


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

    def predict(self, features: Tensor) -> Tensor:
        """Return the class (m,) with the largest logit of each row of ``features`` (m, C)."""
        return torch.cat([self.logits(some).argmax(1) for some in features.split(rows(*self.weight.shape))])

    def to(self, device: torch.device | str) -> Linear:
        """Return the classifier on ``device``."""
        return Linear(*(tensor.to(device) for tensor in (self.mean, self.std, self.weight, self.bias)))


def rows(classes: int, channels: int) -> int:
    """Return the number of samples that are worked on at a time."""
    return max(1, PART // (classes + channels))


def fit_linear(features: Tensor, labels: Tensor, classes: int, l2: float = L2, iterations: int = ITERATIONS) -> Linear:
    """Fit multinomial logistic regression on standardised ``features`` (n, C) with full-batch L-BFGS from zero.

    It minimises mean cross-entropy + 0.5 · ``l2`` · ‖weight‖². The problem is convex, so the result needs no seed. Features
    are standardised when their part is used; loss and gradient are summed over the parts.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    # a constant channel carries no information
    std = torch.where(std > 1e-6 * std.max(), std, std.max().clamp(min=1e-12))
    weight = features.new_zeros(classes, features.shape[1]).requires_grad_()
    bias = features.new_zeros(classes).requires_grad_()
    solver = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")
    size = rows(*weight.shape)

    def closure() -> Tensor:
        solver.zero_grad()
        total = torch.zeros((), dtype=torch.float64, device=features.device)
        for some, answers in zip(features.split(size), labels.split(size), strict=True):
            logits = F.linear((some - mean) / std, weight, bias)
            total += _descended(F.cross_entropy(logits, answers) * (len(some) / len(features)))
        total += _descended(0.5 * l2 * weight.square().sum())
        return total.to(features.dtype)

    solver.step(closure)
    return Linear(mean, std, weight.detach(), bias.detach())


def _descended(loss: Tensor) -> Tensor:
    """Add the gradient of ``loss`` to those of the parameters, and return its value."""
    loss.backward()
    return loss.detach()
