"""Classifiers on frozen features.

Shapes: n training samples, m other samples, C channels, K classes. The k-NN classifier is `pretrain.knn`.

Features may fill most of the memory (ImageNet), so nothing here makes a copy of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
    weight, bias = features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)
    size = rows(*weight.shape)

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for some, answers in zip(features.split(size), labels.split(size), strict=True):
            yield (some - mean) / std, answers

    minimise(parts, len(features), weight, bias, l2, iterations)
    return Linear(mean, std, weight, bias)


def minimise(
    parts: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    count: int,
    weight: Tensor,
    bias: Tensor,
    l2: float,
    iterations: int,
    tolerance: tuple[float, float] = (1e-7, 1e-9),
) -> int:
    """Minimise mean cross-entropy + 0.5 · ``l2`` · ‖weight‖² by full-batch L-BFGS; return the number of its iterations.

    Args:
        parts: gives the samples (m, C) and their classes (m,) part by part, the same in each call.
        count: number of samples in all parts.
        weight: (K, C), where to start; it is changed. If K is 1, the logit of class 0 is 0 and this is that of class 1.
        bias: (K,), where to start; it is changed.
        l2: strength of the penalty.
        iterations: most iterations.
        tolerance: end once no entry of the gradient is larger than the first, or the loss changes by less than the second.
    """
    weight.requires_grad_(), bias.requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        tolerance_grad=tolerance[0],
        tolerance_change=tolerance[1],
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        solver.zero_grad()
        total = torch.zeros((), dtype=torch.float64, device=weight.device)
        for some, answers in parts():
            logits = F.linear(some, weight, bias)
            if len(bias) == 1:
                loss = F.binary_cross_entropy_with_logits(logits[:, 0], answers.to(logits.dtype))
            else:
                loss = F.cross_entropy(logits, answers)
            total += _descended(loss * (len(some) / count))
        total += _descended(0.5 * l2 * weight.square().sum())
        return total.to(weight.dtype)

    solver.step(closure)
    weight.requires_grad_(False), bias.requires_grad_(False)
    return int(solver.state[weight]["n_iter"])


def _descended(loss: Tensor) -> Tensor:
    """Add the gradient of ``loss`` to those of the parameters, and return its value."""
    loss.backward()
    return loss.detach()
