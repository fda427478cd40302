"""U2PL's losses of labels and pseudo-labels, and the entropy that parts reliable from unreliable pixels.

Shapes: B pictures of H × W pixels; maps have h × w cells; K classes. Label 255 is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional

from transfer.segmentation.u2pl.mixing import IGNORED


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy (B, H, W), in nats, of the class probabilities of ``logits`` (B, K, H, W)."""
    chances = logits.softmax(1)
    return -(chances * (chances + 1e-10).log()).sum(1)


def threshold(uncertainty: Tensor, labels: Tensor, percent: float) -> float:
    """Return the percentile of the entropies (B, H, W) of the pixels whose label (B, H, W) is not ignored."""
    return float(np.percentile(uncertainty[labels != IGNORED].cpu().numpy(), percent))


def supervised(logits: Tensor, labels: Tensor, ohem: dict[str, float] | None) -> Tensor:
    """Return the mean cross entropy of ``logits`` (B, K, H, W), with OHEM of the hardest pixels.

    ``ohem`` keeps pixels whose class has at most probability "thresh", and at least the "min_kept" hardest of the batch.
    """
    if ohem and ohem["min_kept"] <= int((labels != IGNORED).sum()):
        valid = labels != IGNORED
        chances = logits.detach().softmax(1).gather(1, labels.where(valid, 0)[:, None])[:, 0].masked_fill(~valid, 1)
        least = chances.flatten().kthvalue(int(ohem["min_kept"])).values
        labels = labels.masked_fill(chances > max(float(least), ohem["thresh"]), IGNORED)
    return functional.cross_entropy(logits, labels, ignore_index=IGNORED)


def pseudo_label_loss(logits: Tensor, labels: Tensor, teacher: Tensor, percent: float) -> Tensor:
    """Return the loss on the ``percent`` % of pixels of which the ``teacher``'s logits (B, K, H, W) are most certain.

    It is weighted by the number of all pixels over that of those pixels (equation 4 and its weight).
    """
    uncertainty = entropy(teacher)
    unsure = uncertainty >= threshold(uncertainty, labels, percent)
    kept = labels.masked_fill(unsure, IGNORED)
    weight = kept.numel() / (kept != IGNORED).sum()
    return weight * functional.cross_entropy(logits, kept, ignore_index=IGNORED)


def shrunk(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Return masks (B, C, H, W) at ``size`` (h, w), by nearest neighbours."""
    return functional.interpolate(masks.float(), size=tuple(size), mode="nearest")


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return labels (B, H, W) as (B, K, H, W), 0 in all classes where they are ignored."""
    found = functional.one_hot(labels.where(labels != IGNORED, 0), classes).permute(0, 3, 1, 2)
    return found * (labels != IGNORED)[:, None]
