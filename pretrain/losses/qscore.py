"""Q-score of representations by their discriminative features, and the regulariser that raises it.

Kalibhat et al., "Measuring Self-Supervised Representation Quality for Downstream Classification using Discriminative
Features", AAAI 2024 (arXiv 2203.01881, later versions). There is no public code, and the text of the paper was not
available: the definitions and constants are those that a public summary of it gives. What the summary leaves open is
decided here: "between the percentiles" includes them, both terms of the regulariser are means and not sums, and the
Q-score of an image without an active discriminative feature is 0.

Shapes: n images, r features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixbench.distributed import all_gather_cat
from pretrain.losses import full_precision

ACTIVE = 4
"""ε: a feature is highly active in an image if it lies more than ε standard deviations above the image's mean."""
DISCRIMINATIVE = (0.5, 0.95)
"""Quantiles of the activity between which a feature is discriminative: not rare, and not common to most images."""


def highly_active(h: Tensor) -> Tensor:
    """Return where the features ``h`` (n, r) exceed μ_i + ε σ_i, with mean and deviation of image i: (n, r) bool."""
    std, mean = torch.std_mean(h, dim=1, correction=0, keepdim=True)
    return h > mean + ACTIVE * std


def discriminative(activity: Tensor) -> Tensor:
    """Return which features are discriminative, (r,) bool.

    Args:
        activity: A_j, the fraction of images in which each feature is highly active, (r,).
    """
    low, high = torch.quantile(activity, activity.new_tensor(DISCRIMINATIVE))
    return (activity >= low) & (activity <= high)


def q_scores(h: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of h_ij − μ_i over the features of each image that are both highly active and ``chosen``: (n,).

    It is 0 for an image without one. ``chosen`` (r,) is the result of `discriminative`.
    """
    counted = highly_active(h) & chosen
    above = (h - h.mean(1, keepdim=True)).masked_fill(~counted, 0).sum(1)
    return above / counted.sum(1).clamp(min=1)


def q_regulariser(h: Tensor) -> tuple[Tensor, Tensor]:
    """Compute what is added to a loss, times λ, to raise low Q-scores, over the batch of all processes.

    − mean_i [Q_i < α] Q_i + mean_j [‖h_·j‖₁ > β] ‖h_·j‖₁, where α and β are the means of Q_i and of the column norms ‖h_·j‖₁. The
    second term keeps a few features from becoming active in all images.

    Args:
        h: features of the images of this process, (n, r), the same n in every process.

    Returns:
        The regulariser, and the mean Q-score without a gradient.
    """
    with torch.autocast(h.device.type, enabled=False):
        everything = all_gather_cat(full_precision(h), grad=True)
        activity = highly_active(everything).to(everything.dtype).mean(0)
        q, norms = q_scores(everything, discriminative(activity)), everything.abs().sum(0)
        low, large = q < q.mean(), norms > norms.mean()
        return (norms * large).mean() - (q * low).mean(), q.detach().mean()
