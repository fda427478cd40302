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
    """Return −2 × the mean over images of the mean cosine of the positive pairs, in one direction (PixPro, Eq. 5).

    The result is a scalar in [−2, 2]. An image without a positive pair contributes 0. It still counts in the mean, as
    in the official code; the paper leaves it out.

    Args:
        query: L2-normalised over channels, (B, C, H, W).
        key: L2-normalised over channels, (B, C, H, W). Query and key get a gradient if they require one.
        mask: positive mask, bool (B, Nq, Nk), see `pretrain.losses.geometry.positive_mask`.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = full_precision(query).flatten(2), full_precision(key).flatten(2)
        positive = mask.to(query.dtype)
        cosine = query.transpose(1, 2) @ key
        per_image = (cosine * positive).sum((1, 2)) / (positive.sum((1, 2)) + 1e-6)
        return -2 * per_image.mean()


def pixel_contrast(query: Tensor, key: Tensor, mask: Tensor, counted: Tensor, temperature: float) -> Tensor:
    """Compute the loss of PixContrast (PixPro, Eq. 1 and 2), in one direction: a scalar in [0, ∞).

    The loss of a query cell is −log(Σ_positives e^(cos/τ) / Σ_all e^(cos/τ)), where "all" are the cells of the other
    view of the same image. It is averaged over the counted cells of an image, then over images. As in
    `pixel_consistency`, an image without a counted cell contributes 0 and stays in the mean.

    Args:
        query: L2-normalised over channels, (B, C, H, W).
        key: L2-normalised over channels, (B, C, H, W).
        mask: positive mask, bool (B, Nq, Nk); all other pairs are negatives.
        counted: query cells to average over, bool (B, Nq), see `pretrain.losses.geometry.in_intersection`. Cells
            without a positive pair are left out.
        temperature: τ, divisor of the cosines.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = full_precision(query).flatten(2), full_precision(key).flatten(2)
        logits = query.transpose(1, 2) @ key / temperature
        counted = counted & mask.any(2)
        # A cell that is not counted gets every cell as a positive: its loss and its gradient are 0, not NaN.
        positives = logits.masked_fill(~(mask | ~counted[:, :, None]), -torch.inf)
        per_cell = logits.logsumexp(2) - positives.logsumexp(2)
        return (per_cell.sum(1) / counted.sum(1).clamp(min=1)).mean()


def consistency_both_ways(
    queries: Sequence[Tensor], keys: Sequence[Tensor], boxes: tuple[Tensor, Tensor], threshold: float
) -> tuple[Tensor, Tensor]:
    """Compute `pixel_consistency` of view 1 with view 2 and of view 2 with view 1.

    Args:
        queries: queries of view 1 and view 2, see `pixel_consistency`.
        keys: keys of view 1 and view 2.
        boxes: crop boxes of view 1 and view 2, see `pretrain.losses.geometry.positive_mask`.
        threshold: distance below which two cells are a positive pair.

    Returns:
        The sum of both directions, from −4 to 4, and the positive mask (B, N1, N2).
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
    """Compute `pixel_contrast` of view 1 with view 2 and of view 2 with view 1.

    Cells in the other view's crop box are counted. Arguments and results are those of `consistency_both_ways`, but the
    sum lies in [0, ∞).
    """
    shape = (keys[0].shape[2], keys[0].shape[3])
    mask, (box1, box2) = positive_mask(*boxes, shape, threshold), boxes
    one = pixel_contrast(queries[0], keys[1], mask, in_intersection(box1, box2, shape), temperature)
    back = pixel_contrast(queries[1], keys[0], mask.mT, in_intersection(box2, box1, shape), temperature)
    return one + back, mask
