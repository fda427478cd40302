"""Losses between the cells of two views.

Shapes: B batch, C channels, N = H·W cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.losses import full_precision


def pixel_consistency(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """−2 × mean over images of the mean cosine of the positive pairs, one direction (PixPro, Eq. 5).

    A scalar in [−2, 2]. The symmetric loss is the sum of two calls, in [−4, 4]. An image without a positive pair
    contributes 0; the official code, followed here, still counts it in the mean, the paper leaves it out.

    Args:
        query, key: L2-normalised over channels, (B, C, H, W). The gradient goes wherever they require it.
        mask: of positive pairs, bool (B, Nq, Nk), see `pretrain.losses.geometry.positive_mask`.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = full_precision(query).flatten(2), full_precision(key).flatten(2)
        positive = mask.to(query.dtype)
        cosine = query.transpose(1, 2) @ key
        per_image = (cosine * positive).sum((1, 2)) / (positive.sum((1, 2)) + 1e-6)
        return -2 * per_image.mean()
