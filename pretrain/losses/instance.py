"""Losses between whole images.

Shapes: B batch of this process, R processes, C channels, K keys in the queue.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pixbench.distributed import all_gather_cat, mean_over_processes, rank, world_size
from pretrain.losses import full_precision


def info_nce(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Compute InfoNCE with a queue (MoCo, arXiv 1911.05722, Eq. 1).

    Args:
        query: L2-normalised, (B, C).
        key: L2-normalised, (B, C); row i is the positive of row i of ``query``.
        negatives: L2-normalised, (K, C).
        temperature: divisor of the cosines.

    Returns:
        The loss, and the fraction of queries that are most similar to their own key.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key, negatives = full_precision(query), full_precision(key), full_precision(negatives)
        positive = (query * key).sum(1, keepdim=True)
        logits = torch.cat([positive, query @ negatives.T], dim=1) / temperature
        return _cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


def nt_xent(view1: Tensor, view2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Compute NT-Xent over all processes (SimCLR, arXiv 2002.05709, Eq. 1).

    Each of the 2B local features is an anchor, which is compared with the 2RB − 1 others. The loss is the mean of this
    process; gradients of the gathered features flow back to the processes that computed them.

    Args:
        view1: L2-normalised, (B, C). B is the same in every process.
        view2: L2-normalised, (B, C); row i is the same image as row i of ``view1``.
        temperature: divisor of the cosines.

    Returns:
        The loss, and the fraction of anchors that are most similar to their partner.
    """
    with torch.autocast(view1.device.type, enabled=False):
        logits, partner = _both_views(view1, view2, temperature)
        return _cross_entropy(logits, partner)


def nt_xent_with_keys(
    query: Tensor, keys: tuple[Tensor, Tensor], view: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Compute the part of one view of NT-Xent with a momentum encoder, over all processes.

    The anchors are the queries of ``view``. They are compared with the keys of both views, not with one another. The partner of
    an anchor is the key of its other view; the key of its own view is left out. NT-Xent is the mean of both views' parts.

    Args:
        query: features of ``view`` by the student, L2-normalised, (B, C). B is the same in every process.
        keys: features of view 1 and view 2 by the momentum encoder, L2-normalised, (B, C) each; they get no gradient.
        view: 0 or 1.
        temperature: divisor of the cosines.

    Returns:
        The loss, and the fraction of anchors that are most similar to their partner.
    """
    with torch.autocast(query.device.type, enabled=False):
        everything = torch.cat([all_gather_cat(full_precision(key), grad=False) for key in keys])  # (2RB, C)
        first, half = _first(query), len(everything) // 2
        logits = _logits(full_precision(query), everything, first + view * half, temperature)
        return _cross_entropy(logits, first + (1 - view) * half)


def sup_con(view1: Tensor, view2: Tensor, label: Tensor, temperature: float) -> Tensor:
    """Compute SupCon over all processes (arXiv 2004.11362, Eq. 2, "out").

    This is `nt_xent` with every image of the same class as a partner: the mean over anchors of the mean over their
    partners of −log softmax. If all labels are different, it equals `nt_xent`.

    Args:
        view1: L2-normalised, (B, C). B is the same in every process.
        view2: L2-normalised, (B, C); row i is the same image as row i of ``view1``.
        label: class of each image, (B,) int64.
        temperature: divisor of the cosines.
    """
    with torch.autocast(view1.device.type, enabled=False):
        logits, _ = _both_views(view1, view2, temperature)
        everyone = all_gather_cat(label, grad=False).repeat(2)  # (2RB,)
        itself = logits.isneginf()
        partners = (label.repeat(2)[:, None] == everyone) & ~itself
        log_softmax = logits.log_softmax(1).masked_fill(~partners, 0)
        return -(log_softmax.sum(1) / partners.sum(1)).mean()


def cosine_regression(prediction: Tensor, target: Tensor) -> Tensor:
    """Return −2 × the mean cosine of ``prediction`` and ``target``, both L2-normalised (B, C): a scalar in [−2, 2].

    This is one direction only. The value is 2 less than the mean squared distance (BYOL, Eq. 2).
    Source: `PixPro.regression_loss` in `contrast/models/PixPro.py`.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        return -2 * (full_precision(prediction) * full_precision(target)).sum(1).mean()


def cross_entropy(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of ``logits`` (B, classes) for ``label`` (B,), and the accuracy as a fraction."""
    with torch.autocast(logits.device.type, enabled=False):
        return _cross_entropy(full_precision(logits), label)


def labelled_cross_entropy(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the accuracy of the images that have a label; −1 in ``label`` (B,) stands for none.

    The mean over the processes is the mean over the labelled images of all of them: the loss of a process is the sum over its
    own, divided by their mean number. Both results are 0 where there is no label.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, known = full_precision(logits), label >= 0
        count = mean_over_processes(known.sum().to(logits.dtype)).clamp(min=1 / world_size())
        loss = F.cross_entropy(logits, label, ignore_index=-1, reduction="sum") / count
        hits = (logits.detach().argmax(1) == label) & known
        return loss, hits.sum() / known.sum().clamp(min=1)


def _both_views(view1: Tensor, view2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the logits (2B, 2RB) of all local features with those of all processes, and the index of each one's partner."""
    view1, view2 = full_precision(view1), full_precision(view2)
    everything = torch.cat([all_gather_cat(view1, grad=True), all_gather_cat(view2, grad=True)])  # (2RB, C)
    first, half = _first(view1), len(everything) // 2
    own = torch.cat([first, first + half])
    return _logits(torch.cat([view1, view2]), everything, own, temperature), torch.cat([first + half, first])


def _first(local: Tensor) -> Tensor:
    """Return the places (B,) of this process's images among those of all processes."""
    return torch.arange(len(local), device=local.device) + rank() * len(local)


def _logits(anchors: Tensor, everything: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Return cosines / temperature (A, 2RB) of the anchors (A, C) with ``everything``; −∞ at the places ``own`` (A,)."""
    return (anchors @ everything.T / temperature).scatter(1, own[:, None], -torch.inf)


def _cross_entropy(logits: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss, and the fraction of rows whose largest logit is at ``answer``."""
    hits = logits.detach().argmax(1) == answer
    return F.cross_entropy(logits, answer), hits.float().mean()
