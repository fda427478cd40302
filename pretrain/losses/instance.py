"""Losses between whole images.

Shapes: B batch of this process, R processes, C channels, K keys in the queue.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixbench.distributed import all_gather_cat, rank
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


def nt_xent(
    view1: Tensor, view2: Tensor, temperature: float, keys: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """NT-Xent over all processes (SimCLR, arXiv 2002.05709, Eq. 1): loss, and share of anchors with the partner first.

    Each of the 2B local features is told from the 2RB − 1 others. The loss is this process's mean; gradients of the
    gathered features flow back to the processes they came from.

    Args:
        view1, view2: L2-normalised, (B, C); row i of both is the same image. B is the same in every process.
        keys: what the anchors are compared with, if not with themselves: the features that a target branch has of
            view 1 and view 2. An anchor's partner is the key of its other view; the key of its own view is left out.
    """
    with torch.autocast(view1.device.type, enabled=False):
        logits, partner = _logits(view1, view2, temperature, keys)
        return _cross_entropy(logits, partner)


def sup_con(view1: Tensor, view2: Tensor, label: Tensor, temperature: float) -> Tensor:
    """SupCon over all processes (arXiv 2004.11362, Eq. 2, "out"): as `nt_xent`, with every image of the class a partner.

    Mean over anchors of the mean over their partners of −log softmax. With all labels different it equals `nt_xent`.

    Args:
        view1, view2: L2-normalised, (B, C); row i of both is the same image. B is the same in every process.
        label: (B,) int64.
    """
    with torch.autocast(view1.device.type, enabled=False):
        logits, _ = _logits(view1, view2, temperature)
        everyone = all_gather_cat(label, grad=False).repeat(2)  # (2RB,)
        itself = logits.isneginf()
        partners = (label.repeat(2)[:, None] == everyone) & ~itself
        log_softmax = logits.log_softmax(1).masked_fill(~partners, 0)
        return -(log_softmax.sum(1) / partners.sum(1)).mean()


def cosine_regression(prediction: Tensor, target: Tensor) -> Tensor:
    """−2 × mean cosine, one direction: a scalar in [−2, 2]; 2 less than the squared distance (BYOL, Eq. 2).

    Source: `PixPro.regression_loss` in `contrast/models/PixPro.py`.

    Args:
        prediction, target: L2-normalised, (B, C).
    """
    with torch.autocast(prediction.device.type, enabled=False):
        return -2 * (full_precision(prediction) * full_precision(target)).sum(1).mean()


def cross_entropy(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of ``logits`` (B, classes), and the share of images whose ``label`` (B,) comes first."""
    with torch.autocast(logits.device.type, enabled=False):
        return _cross_entropy(full_precision(logits), label)


def _logits(
    view1: Tensor, view2: Tensor, temperature: float, keys: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines / temperature (2B, 2RB) of local anchors and all keys, the anchors' own at −∞; index of each partner."""
    view1, view2 = full_precision(view1), full_precision(view2)
    key1, key2 = (view1, view2) if keys is None else map(full_precision, keys)
    everything = torch.cat([all_gather_cat(key1, grad=True), all_gather_cat(key2, grad=True)])  # (2RB, C)
    half = len(everything) // 2
    first = torch.arange(len(view1), device=view1.device) + rank() * len(view1)
    own = torch.cat([first, first + half])
    partner = torch.cat([first + half, first])
    logits = torch.cat([view1, view2]) @ everything.T / temperature
    return logits.scatter(1, own[:, None], -torch.inf), partner


def _cross_entropy(logits: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    hits = logits.detach().argmax(1) == answer
    return F.cross_entropy(logits, answer), hits.float().mean()
