"""Match predicted classes with true ones."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment

from transfer.frozen.scoring import Confusion


def matched(confusion: Confusion) -> Confusion:
    """Return ``confusion`` after each predicted class took the number of a true one: one to one, with the largest sum of IoU."""
    counts = confusion.counts.double()
    union = counts.sum(1, keepdim=True) + counts.sum(0) - counts
    _, taken = linear_sum_assignment((counts / union.clamp(min=1e-8)).numpy(), maximize=True)
    found = Confusion(len(counts))
    found.counts = confusion.counts[:, torch.from_numpy(taken)]
    return found
