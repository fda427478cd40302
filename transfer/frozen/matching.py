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
    columns = torch.from_numpy(taken)
    found.counts = confusion.counts[:, columns]
    now, classes = columns.argsort(), len(counts)  # the new number of each prediction
    found.each = [(pairs // classes * classes + now[pairs % classes], number) for pairs, number in confusion.each]
    return found
