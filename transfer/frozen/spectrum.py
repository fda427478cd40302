"""Label-free numbers of a set of features: RankMe, α-ReQ, uniformity.

Shapes: n cells, C channels, r = min(n, C) singular values. All are computed in float64, and are NaN where they are not defined.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FLAT = 1e-12
"""Part of the largest eigenvalue, or of the mean square of the features, that rounding errors of float32 stay below."""
ROWS = 1024
"""Number of rows of a matrix of pairs at a time."""


def rank_me(cells: Tensor, epsilon: float) -> float:
    """Return exp of the entropy of the singular values of ``cells`` (n, C), divided by their sum, plus ``epsilon``.

    Garrido et al., arXiv 2210.02885, equations 1 and 2: 1 for features on a line, near r for features with equal variances. The
    features are not centred.
    """
    values = torch.linalg.svdvals(cells.double())
    if not values.sum() > 0:
        return math.nan
    shares = values / values.sum() + epsilon
    return math.exp(-(shares * shares.log()).sum())


def eigenspectrum(cells: Tensor) -> np.ndarray:
    """Return the eigenvalues (r,) of the covariance of ``cells`` (n, C), largest first, divided by their sum.

    They are 0 if the cells differ by rounding errors only.
    """
    cells = cells.double()
    values = torch.linalg.svdvals(cells - cells.mean(0)).square()
    total = values.sum()
    varies = total > FLAT * cells.square().sum()
    return (values / total if varies else torch.zeros_like(values)).cpu().numpy()


def alpha_req(spectrum: np.ndarray, first: int, last: int) -> tuple[float, tuple[int, int]]:
    """Return the decay α of eigenvalues (r,), λ_k ∝ k^-α, and the ranks that it was fitted to.

    Agrawal et al., "α-ReQ", NeurIPS 2022. As in the authors' package (arnab39/reptrix, alpha.py), log λ_k is fitted over the
    ranks ``first`` to ``last`` with the weight 1 / k. Ranks without variance are left out; with fewer than two, α is NaN.
    """
    present = int((spectrum > FLAT * spectrum[:1]).sum()) if len(spectrum) and spectrum[0] > 0 else 0
    last = min(last, present)
    if last <= first:
        return math.nan, (first, last)
    ranks = np.arange(first, last + 1)
    slope, _ = np.polyfit(np.log(ranks), np.log(spectrum[first - 1 : last]), 1, w=ranks**-0.5)  # weights get squared
    return -float(slope), (first, last)


def uniformity(cells: Tensor, t: float) -> float:
    """Return log mean exp(-t ‖x - y‖²) over all pairs of different ``cells`` (n, C), each scaled to length 1.

    Wang and Isola, arXiv 2005.10242. It is NaN for fewer than two cells.
    """
    count = len(cells)
    if count < 2:
        return math.nan
    unit = F.normalize(cells.double(), dim=1)
    squares = unit.square().sum(1)
    total = 0.0
    for first in range(0, count, ROWS):
        some = slice(first, first + ROWS)
        distances = (squares[some, None] + squares - 2 * unit[some] @ unit.T).clamp(min=0)
        total += float((-t * distances).exp().sum())
    return math.log((total - count) / (count * (count - 1)))  # a cell and itself: exp(0)
