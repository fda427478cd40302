"""Pixel propagation module (PixPro, arXiv 2011.10043, Eq. 3 and 4).

Shapes: B batch, C channels, N = H·W cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.heads import ConvHead


def similarity(x: Tensor, gamma: float, clamp: float) -> Tensor:
    """Return s(x_i, x_j) = max(cos(x_i, x_j), clamp)^γ of all pairs of cells (Eq. 4): (B, C, H, W) -> (B, N, N).

    For γ < 1 the power has no finite slope at 0, so 1e-6 is added to the cosine (official code; not in the paper).
    """
    unit = F.normalize(x, dim=1).flatten(2)
    cosine = (unit.transpose(1, 2) @ unit).clamp(min=clamp)
    return (cosine + 1e-6 if gamma < 1 else cosine) ** gamma


class PixelPropagation(nn.Module):
    """Replace each cell by the sum of all transformed cells, weighted by their similarity to it (Eq. 3).

    y_i = Σ_j s(x_i, x_j) g(x_j). As in the official code, g(x_j) is L2-normalised over channels and the weights of a
    row are not normalised. The output y has to be normalised before the loss.

    Args:
        channels: C.
        layers: layers of the transform g: 0 the identity, 1 a 1×1 convolution, 2 a `ConvHead` with C hidden channels.
            Its BN is synchronised as in the rest of the model (the official code leaves it out).
        gamma: exponent γ of the similarity.
        clamp: lower bound of the cosine.
    """

    def __init__(self, channels: int, layers: int = 1, gamma: float = 2.0, clamp: float = 0.0) -> None:
        super().__init__()
        transforms: dict[int, Callable[[], nn.Module]] = {
            0: nn.Identity,
            1: lambda: nn.Conv2d(channels, channels, 1),
            2: lambda: ConvHead(channels, channels, channels),
        }
        if layers not in transforms:
            raise UserError(f"the PPM cannot have {layers} layers; choose 0, 1 or 2")
        self.transform = transforms[layers]()
        self.gamma, self.clamp = gamma, clamp

    def forward(self, x: Tensor) -> Tensor:
        """Propagate ``x`` (B, C, H, W) and return (B, C, H, W), not normalised."""
        value = F.normalize(self.transform(x), dim=1).flatten(2)
        weights = similarity(x, self.gamma, self.clamp)
        return (value @ weights.transpose(1, 2)).view_as(x)

    def extra_repr(self) -> str:
        """Return the settings for `repr`."""
        return f"gamma={self.gamma}, clamp={self.clamp}"
