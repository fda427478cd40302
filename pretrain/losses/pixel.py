"""Losses between the cells of two views.

Shapes: B batch, C channels, N = H·W cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pretrain.losses import full_precision, parts
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
        count = mask.sum((1, 2), dtype=key.dtype)
        return (query * (key @ mask.mT.to(key.dtype)) * _scale(count)).sum()


@torch.no_grad()
def pulls(
    keys: Sequence[Tensor], boxes: tuple[Tensor, Tensor], threshold: float
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return what the queries of `pixel_consistency` are multiplied with, for both views.

    The sum over positive pairs of q_i · k_j is the sum over i of q_i · p_i, where p_i is the sum of the keys of i's positives. So
    one product of the keys with the mask replaces the matrix of cosines and its gradient: the loss of a view is
    (query · pull).sum(), and the pull itself is the gradient of the query. It needs no query, and no matrix of all pairs for
    more than a few images at a time.

    Args:
        keys: keys of view 1 and view 2, L2-normalised over channels, (B, C, H, W) each; they get no gradient.
        boxes: crop boxes of view 1 and view 2, see `pretrain.losses.geometry.positive_mask`.
        threshold: distance below which two cells are a positive pair.

    Returns:
        The pulls on the queries of view 1 and view 2, (B, C, H, W) each, and the number of positive pairs of each image, (B,).
    """
    key1, key2 = (full_precision(key).flatten(2) for key in keys)
    shape = (keys[0].shape[2], keys[0].shape[3])
    pull1, pull2 = torch.empty_like(key1), torch.empty_like(key2)
    counts = []
    with torch.autocast(key1.device.type, enabled=False):
        for part in parts(len(key1), key1.shape[2], key1.device):
            mask = positive_mask(boxes[0][part], boxes[1][part], shape, threshold).to(key1.dtype)
            torch.bmm(key2[part], mask.mT, out=pull1[part])
            torch.bmm(key1[part], mask, out=pull2[part])
            counts.append(mask.sum((1, 2)))
        count = torch.cat(counts)
        scale = _scale(count)
    return (pull1.mul_(scale).view_as(keys[0]), pull2.mul_(scale).view_as(keys[1])), count


def _scale(count: Tensor) -> Tensor:
    """Return −2 / (B · the number of positive pairs of each image), (B, 1, 1), for ``count`` (B,)."""
    return (-2 / len(count) / (count + 1e-6))[:, None, None]


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


def contrast_one_way(
    query: Tensor, key: Tensor, box_q: Tensor, box_k: Tensor, threshold: float, temperature: float
) -> tuple[Tensor, Tensor]:
    """Compute `pixel_contrast` of one view with the other. Cells in the other view's crop box are counted.

    Args:
        query: queries of the view, see `pixel_contrast`.
        key: keys of the other view.
        box_q: crop boxes of the view, see `pretrain.losses.geometry.positive_mask`.
        box_k: crop boxes of the other view.
        threshold: distance below which two cells are a positive pair.
        temperature: τ, divisor of the cosines.

    Returns:
        The loss in [0, ∞), and the number of positive pairs of each image, (B,).
    """
    shape = (key.shape[2], key.shape[3])
    mask = positive_mask(box_q, box_k, shape, threshold)
    loss = pixel_contrast(query, key, mask, in_intersection(box_q, box_k, shape), temperature)
    return loss, mask.sum((1, 2))
