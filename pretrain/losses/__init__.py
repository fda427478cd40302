"""Losses as pure functions of L2-normalised features. They calculate in float32 at least, also under autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32; float64 stays what it is."""
    return x if x.dtype == torch.float64 else x.float()


def unit(x: Tensor) -> Tensor:
    """``x`` (B, C, ...) L2-normalised over C, in full precision."""
    return F.normalize(full_precision(x), dim=1)
