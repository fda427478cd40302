"""Q-score: predict from a representation, without labels, whether its image will be classified wrongly.

Kalibhat et al., arXiv 2203.01881. The Q of its first version, "Understanding Failure Modes of Self-Supervised Learning",
is the z-score of the largest feature divided by the L1 norm of the representation. The text of the paper was not
available to check its exact formulas. This module uses the following ones for the representation h of one sample (n
samples, r features):

- l1 = Σ|h_j|
- z = (max h − mean h) / std h, over the features of the sample, std with r in the denominator; 0 if all are equal
- sparsity = fraction of features with |h_j| < 0.01 · max|h| (a soft limit: after pooling few features are exactly 0)
- q = z / l1; 0 if l1 is 0

Later versions define another Q, by discriminative features; `pretrain.losses.qscore` has its definition and source:

- active = number of highly active features of the sample
- q_discriminative = mean of h_j − mean h over those of them that are discriminative; 0 if there is none. The activity of
  the features, which decides which are discriminative, is counted over all n samples
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from pretrain.losses.qscore import discriminative, highly_active, q_scores

ROWS = 1024
"""Number of samples at a time."""
SOFT_ZERO = 0.01
WRONG_IF_HIGH = {"l1": 1, "z": -1, "sparsity": -1, "q": -1, "active": -1, "q_discriminative": -1}
"""Sign that makes each score larger for the samples that the paper expects to be classified wrongly."""


def scores(features: Tensor) -> dict[str, np.ndarray]:
    """Return the six scores of ``features`` (n, r) by name, each (n,) float64."""
    counts = torch.stack([highly_active(h).sum(0) for h in _parts(features)]).sum(0)
    chosen = discriminative(counts / len(features))
    parts = [_scores(h, chosen) for h in _parts(features)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def _parts(features: Tensor) -> Iterator[Tensor]:
    return (some.double().cpu() for some in features.split(ROWS))


def _scores(h: Tensor, chosen: Tensor) -> dict[str, Tensor]:
    size, largest, std = h.abs(), h.amax(1), h.std(1, correction=0)
    l1 = size.sum(1)
    flat = std <= 1e-12 * size.amax(1)
    z = ((largest - h.mean(1)) / std).masked_fill(flat, 0)
    sparsity = (size < SOFT_ZERO * size.amax(1, keepdim=True)).double().mean(1)
    q = (z / l1).masked_fill(l1 == 0, 0)
    active = highly_active(h).sum(1).double()
    return {"l1": l1, "z": z, "sparsity": sparsity, "q": q, "active": active, "q_discriminative": q_scores(h, chosen)}


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the probability that a positive sample scores higher than a negative one; ties count half (Mann–Whitney).

    It is NaN if there are no positive or no negative samples.
    """
    positive = positive.astype(bool)
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return float("nan")
    rank_sum = rankdata(score)[positive].sum()
    return float((rank_sum - count * (count + 1) / 2) / (count * others))


def diagnose(found: dict[str, np.ndarray], wrong: np.ndarray) -> dict[str, float]:
    """Return the mean of each score and its AUROC for ``wrong`` (n,): above 0.5 if the paper's direction is right."""
    means = {f"{name}_mean": float(score.mean()) for name, score in found.items()}
    return means | {f"auroc_{name}": auroc(sign * found[name], wrong) for name, sign in WRONG_IF_HIGH.items()}
