"""Losses as pure functions of L2-normalised features. They compute in float32 or float64, also under autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Return ``x`` in float32; a float64 tensor stays float64."""
    return x if x.dtype == torch.float64 else x.float()


def unit(x: Tensor) -> Tensor:
    """Return ``x`` (B, C, ...) L2-normalised over C, in full precision."""
    return F.normalize(full_precision(x), dim=1)
