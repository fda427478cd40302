"""Losses between whole images.

Shapes: B batch of this process, R processes, C channels, K keys in the queue.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.distributed import all_gather_cat, rank
from pretrain.losses import full_precision


def info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE with a queue (MoCo, arXiv 1911.05722, Eq. 1): loss and share of queries whose key comes first.

    Args:
        query, key: L2-normalised, (B, C); row i of one belongs to row i of the other.
        negatives: L2-normalised, (K, C).
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, negatives = full_precision(query), full_precision(key), full_precision(negatives)
        positive = (query * key).sum(1, keepdim=True)
        logits = torch.cat([positive, query @ negatives.T], dim=1) / temperature
        return _cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


def nt_xent(view1: Tensor, view2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """NT-Xent over all processes (SimCLR, arXiv 2002.05709, Eq. 1): loss, and share of anchors with the partner first.

    Each of the 2B local features is told from the 2RB − 1 others. The loss is this process's mean; gradients of the
    gathered features flow back to the processes they came from.

    Args:
        view1, view2: L2-normalised, (B, C); row i of both is the same image. B is the same in every process.
    """
    with torch.autocast(view1.device.type, enabled=False):
        view1, view2 = full_precision(view1), full_precision(view2)
        everything = torch.cat([all_gather_cat(view1, grad=True), all_gather_cat(view2, grad=True)])  # (2RB, C)
        half = len(everything) // 2
        first = torch.arange(len(view1), device=view1.device) + rank() * len(view1)
        own = torch.cat([first, first + half])
        partner = torch.cat([first + half, first])
        logits = torch.cat([view1, view2]) @ everything.T / temperature
        logits = logits.scatter(1, own[:, None], -torch.inf)
        return _cross_entropy(logits, partner)


def _cross_entropy(logits: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    hits = logits.detach().argmax(1) == answer
    return F.cross_entropy(logits, answer), hits.float().mean()
