"""Losses between the cells of two views.

Shapes: B batch, C channels, N = H·W cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pretrain.losses import full_precision
from pretrain.losses.geometry import in_intersection, positive_mask


def pixel_consistency(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """−2 × mean over images of the mean cosine of the positive pairs, one direction (PixPro, Eq. 5).

    A scalar in [−2, 2]. An image without a positive pair contributes 0; the official code, followed here, still counts
    it in the mean, the paper leaves it out.

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


def pixel_contrast(query: Tensor, key: Tensor, mask: Tensor, counted: Tensor, temperature: float) -> Tensor:
    """PixContrast (PixPro, Eq. 1 and 2), one direction: a scalar in [0, ∞).

    −log(Σ_positives e^(cos/τ) / Σ_all e^(cos/τ)) of a query cell, where "all" are the cells of the same image's other
    view; averaged over the counted cells of an image, then over images. As in `pixel_consistency`, an image without a
    counted cell contributes 0 and stays in the mean.

    Args:
        query, key: L2-normalised over channels, (B, C, H, W).
        mask: of positive pairs, bool (B, Nq, Nk); all other pairs are negatives.
        counted: query cells that the mean is over, bool (B, Nq), see `pretrain.losses.geometry.in_intersection`. Those
            without a positive are left out.
        temperature: τ.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = full_precision(query).flatten(2), full_precision(key).flatten(2)
        logits = query.transpose(1, 2) @ key / temperature
        counted = counted & mask.any(2)
        # What is not counted gets every cell as a positive: its loss is 0 and so is its gradient, without a NaN.
        positives = logits.masked_fill(~(mask | ~counted[:, :, None]), -torch.inf)
        per_cell = logits.logsumexp(2) - positives.logsumexp(2)
        return (per_cell.sum(1) / counted.sum(1).clamp(min=1)).mean()


def consistency_both_ways(
    queries: Sequence[Tensor], keys: Sequence[Tensor], boxes: tuple[Tensor, Tensor], threshold: float
) -> tuple[Tensor, Tensor]:
    """`pixel_consistency` of view 1 with view 2 and back, from −4 to 4; and the mask of positive pairs (B, N1, N2).

    Args:
        queries, keys: of view 1 and view 2, see `pixel_consistency`.
        boxes, threshold: see `pretrain.losses.geometry.positive_mask`.
    """
    mask = positive_mask(*boxes, (keys[0].shape[2], keys[0].shape[3]), threshold)
    one, back = pixel_consistency(queries[0], keys[1], mask), pixel_consistency(queries[1], keys[0], mask.mT)
    return one + back, mask


def contrast_both_ways(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    boxes: tuple[Tensor, Tensor],
    threshold: float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """As `consistency_both_ways`, of `pixel_contrast`: from 0. Cells within the other view's crop are counted."""
    shape = (keys[0].shape[2], keys[0].shape[3])
    mask, (box1, box2) = positive_mask(*boxes, shape, threshold), boxes
    one = pixel_contrast(queries[0], keys[1], mask, in_intersection(box1, box2, shape), temperature)
    back = pixel_contrast(queries[1], keys[0], mask.mT, in_intersection(box2, box1, shape), temperature)
    return one + back, mask
