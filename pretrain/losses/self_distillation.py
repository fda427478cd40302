"""Losses of self-distillation: the student's distribution over prototypes follows the momentum encoder's.

Source: `iBOTLoss` in `main_ibot.py` of bytedance/ibot (arXiv 2111.07832, Eq. 2 and 3).

Shapes: B batch of this process, V views of the student, Q views of the momentum encoder, M masked cells, K prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.losses import full_precision


def sharpened(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Return the target distributions softmax((logits − centre) / temperature) for ``logits`` (..., K) and ``centre`` (K,)."""
    with torch.autocast(logits.device.type, enabled=False):
        return ((full_precision(logits) - centre) / temperature).softmax(-1)


def class_token_loss(student: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of all pairs of two different views of an image.

    Args:
        student: logits of the class tokens, (V, B, K); the first Q views are those of ``targets``.
        targets: distributions of the momentum encoder, (Q, B, K).
        temperature: divisor of the student's logits.
    """
    with torch.autocast(student.device.type, enabled=False):
        logs = (full_precision(student) / temperature).log_softmax(-1)
        entropies = -torch.einsum("qbk,vbk->qv", targets, logs) / student.shape[1]
        same = torch.eye(*entropies.shape, dtype=torch.bool, device=entropies.device)
        return entropies.masked_fill(same, 0).sum() / (entropies.numel() - len(targets))


def masked_cells_loss(student: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """Return the weighted sum of the cross-entropies of masked cells.

    Args:
        student: logits of the patch tokens that the student sees masked, (M, K).
        targets: distributions of the momentum encoder for the same cells, which it sees, (M, K).
        weights: weight of each cell, (M,); see `pretrain.data.masks.places`.
        temperature: divisor of the student's logits.
    """
    with torch.autocast(student.device.type, enabled=False):
        logs = (full_precision(student) / temperature).log_softmax(-1)
        return -((targets * logs).sum(-1) * weights).sum()
