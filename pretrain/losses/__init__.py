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


PAIRS = {"cpu": 2**20, "cuda": 2**27}
"""Number of pairs of cells that are worked on at a time: 4 MB stay in a core's cache, and 512 MB keep a GPU busy."""


def parts(batch: int, cells: int, device: torch.device) -> list[slice]:
    """Divide the images of a ``batch``, each with ``cells`` × ``cells`` pairs, into parts of about `PAIRS` pairs."""
    size = max(1, PAIRS.get(device.type, PAIRS["cuda"]) // max(1, cells**2))
    return [slice(first, first + size) for first in range(0, batch, size)]
