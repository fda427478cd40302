"""Pixel propagation module (PixPro, arXiv 2011.10043, Eq. 3 and 4).

Shapes: B batch, C channels, N = H·W cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.losses import parts
from pretrain.models.heads import ConvHead


def similarity(cosine: Tensor, gamma: float, clamp: float) -> Tensor:
    """Return s = max(cosine, clamp)^γ (Eq. 4), of any shape.

    For γ < 1 the power has no finite slope at 0, so 1e-6 is added to the cosine (official code; not in the paper).
    """
    base = cosine.clamp(min=clamp)
    return (base + 1e-6 if gamma < 1 else base) ** gamma


def slope(cosine: Tensor, gamma: float, clamp: float) -> Tensor:
    """Return the derivative of `similarity`; it is 0 where the cosine is below ``clamp``."""
    base = cosine.clamp(min=clamp)
    if gamma == 2 and clamp == 0:
        return base.mul_(2)  # 0 below the clamp by itself
    return gamma * (base + 1e-6 if gamma < 1 else base) ** (gamma - 1) * (cosine >= clamp)


class _Propagation(torch.autograd.Function):
    """y_i = Σ_j s(u_i · u_j) v_j with s(c) = max(c, clamp)^γ, of unit vectors u (B, C, N) and values v (B, D, N).

    Of the (B, N, N) matrices only the cosines are kept for the gradient; all others exist for a few images at a time. Both
    the cosines and s are symmetric, which spares one of six products.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, value: Tensor, gamma: float, clamp: float) -> Tensor:
        ctx.gamma, ctx.clamp, ctx.parts = gamma, clamp, parts(len(unit), unit.shape[2], unit.device)
        cosines, out = [], torch.empty_like(value)
        for images in ctx.parts:
            cosines.append(unit[images].mT @ unit[images])
            torch.bmm(value[images], similarity(cosines[-1], gamma, clamp), out=out[images])
        ctx.save_for_backward(unit, value, *cosines)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        unit, value, *cosines = ctx.saved_tensors
        of_unit, of_value = torch.empty_like(unit), torch.empty_like(value)
        for images, cosine in zip(ctx.parts, cosines, strict=True):
            torch.bmm(grad[images], similarity(cosine, ctx.gamma, ctx.clamp), out=of_value[images])
            of_weight = grad[images].mT @ value[images]
            of_cosine = (of_weight + of_weight.mT).mul_(slope(cosine, ctx.gamma, ctx.clamp))
            torch.bmm(unit[images], of_cosine, out=of_unit[images])
        return of_unit, of_value, None, None


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
        unit = F.normalize(x, dim=1).flatten(2)
        value = F.normalize(self.transform(x), dim=1).flatten(2)
        kind = x.device.type
        if torch.is_autocast_enabled(kind):  # the products, and so all in between, are of this type
            unit, value = (part.to(torch.get_autocast_dtype(kind)) for part in (unit, value))
        with torch.autocast(kind, enabled=False):
            return _Propagation.apply(unit, value, self.gamma, self.clamp).view_as(x)

    def extra_repr(self) -> str:
        """Return the settings for `repr`."""
        return f"gamma={self.gamma}, clamp={self.clamp}"
