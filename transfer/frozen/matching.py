"""Match predicted classes with true ones."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from transfer.frozen.scoring import Confusion


def matched(confusion: Confusion) -> Confusion:
    """Return ``confusion`` after each predicted class took the number of a true one: one to one, with the largest sum of IoU."""
    now, classes = new_numbers(confusion), len(confusion.counts)
    found = Confusion(classes)
    found.counts = confusion.counts[:, now.argsort()]
    found.each = [(pairs // classes * classes + now[pairs % classes], number) for pairs, number in confusion.each]
    return found


def new_numbers(confusion: Confusion) -> torch.Tensor:
    """Return the true class (K,) that each predicted class is matched with."""
    counts = confusion.counts.double()
    union = counts.sum(1, keepdim=True) + counts.sum(0) - counts
    _, taken = linear_sum_assignment((counts / union.clamp(min=1e-8)).numpy(), maximize=True)
    return torch.from_numpy(taken).argsort()
