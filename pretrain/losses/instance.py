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


def nt_xent(
    view1: Tensor, view2: Tensor, temperature: float, keys: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Compute NT-Xent over all processes (SimCLR, arXiv 2002.05709, Eq. 1).

    Each of the 2B local features is an anchor, which is compared with the 2RB − 1 others. The loss is the mean of this
    process; gradients of the gathered features flow back to the processes that computed them.

    Args:
        view1: L2-normalised, (B, C). B is the same in every process.
        view2: L2-normalised, (B, C); row i is the same image as row i of ``view1``.
        temperature: divisor of the cosines.
        keys: the momentum encoder's features of view 1 and view 2. If given, the anchors are compared with them and not
            with each other. The partner of an anchor is the key of its other view; the key of its own view is left out.

    Returns:
        The loss, and the fraction of anchors that are most similar to their partner.
    """
    with torch.autocast(view1.device.type, enabled=False):
        logits, partner = _logits(view1, view2, temperature, keys)
        return _cross_entropy(logits, partner)


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
        logits, _ = _logits(view1, view2, temperature)
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


def _logits(
    view1: Tensor, view2: Tensor, temperature: float, keys: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return cosines / temperature (2B, 2RB) of the local anchors and all keys, and the index of each anchor's partner.

    The entry of an anchor and its own key is −∞.
    """
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
    """Return the loss, and the fraction of rows whose largest logit is at ``answer``."""
    hits = logits.detach().argmax(1) == answer
    return F.cross_entropy(logits, answer), hits.float().mean()
