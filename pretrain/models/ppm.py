"""Pixel propagation module (PixPro, arXiv 2011.10043, Eq. 3 and 4).

Shapes: B batch, C channels, N = H·W cells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.losses import full_precision, parts
from pretrain.models.heads import ConvHead
from pretrain.models.pointwise import Pointwise


def similarity(cosine: Tensor, gamma: float, clamp: float) -> tuple[Tensor, Tensor]:
    """Return s = max(cosine, clamp)^γ (Eq. 4) and its derivative, which is 0 where the cosine is below ``clamp``.

    For γ < 1 the power has no finite slope at 0, so 1e-6 is added to the cosine (official code; not in the paper).
    """
    base = cosine.clamp(min=clamp)
    if gamma == 2 and clamp == 0:  # the usual case, in which the slope is 0 below the clamp by itself
        return base * base, base.mul_(2)
    base = base + 1e-6 if gamma < 1 else base
    return base**gamma, gamma * base ** (gamma - 1) * (cosine >= clamp)


class _Propagation(torch.autograd.Function):
    """y_i = Σ_j s(u_i · u_j) v_j, where u and v are the unit vectors of ``x`` (B, C, N) and of ``transformed`` (B, D, N).

    Of the (B, N, N) matrices only the cosines are kept for the gradient; all else is computed again, and exists for a few images
    at a time. Both the cosines and s are symmetric, which spares one of six products. Products are of type ``dtype``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, transformed: Tensor, gamma: float, clamp: float, dtype: torch.dtype) -> Tensor:
        ctx.gamma, ctx.clamp, ctx.dtype = gamma, clamp, dtype
        ctx.parts = parts(len(x), x.shape[2], x.device)
        kept, out = [], torch.empty_like(transformed, dtype=dtype)
        for images in ctx.parts:
            unit = _unit(x[images])[0].to(dtype)
            kept.append(unit.mT @ unit)
            value = _unit(transformed[images])[0].to(dtype)
            torch.bmm(value, similarity(kept[-1], gamma, clamp)[0], out=out[images])
        ctx.save_for_backward(x, transformed, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, transformed, *kept = ctx.saved_tensors
        of_x, of_transformed = torch.empty_like(x), torch.empty_like(transformed)
        for images, cosine in zip(ctx.parts, kept, strict=True):
            (unit, length), (value, value_length) = _unit(x[images]), _unit(transformed[images])
            upstream = grad[images].to(ctx.dtype)
            weight, slope = similarity(cosine, ctx.gamma, ctx.clamp)
            of_value = upstream @ weight
            of_transformed[images] = _through_unit(of_value, value, value_length)
            of_weight = upstream.mT @ value.to(ctx.dtype)
            of_cosine = (of_weight + of_weight.mT).mul_(slope)
            of_x[images] = _through_unit(unit.to(ctx.dtype) @ of_cosine, unit, length)
        return of_x, of_transformed, None, None, None


SMALLEST = 1e-12
"""Length below which a vector is divided by this number instead, as in `torch.nn.functional.normalize`."""


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``x`` (b, C, N) L2-normalised over C in full precision, and the lengths (b, 1, N)."""
    x = full_precision(x)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp(min=SMALLEST), length


def _through_unit(grad: Tensor, unit: Tensor, length: Tensor) -> Tensor:
    """Return the gradient of a vector from that of its unit vector: what is not along the vector, divided by its length."""
    along = (unit * grad).sum(1, keepdim=True) * (length >= SMALLEST)
    return (grad - unit * along) / length.clamp(min=SMALLEST)


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
            1: lambda: Pointwise(channels, channels),
            2: lambda: ConvHead(channels, channels, channels),
        }
        if layers not in transforms:
            raise UserError(f"the PPM cannot have {layers} layers; choose 0, 1 or 2")
        self.transform = transforms[layers]()
        self.gamma, self.clamp = gamma, clamp

    def forward(self, x: Tensor) -> Tensor:
        """Propagate ``x`` (B, C, H, W) and return (B, C, H, W), not normalised."""
        kind, transformed = x.device.type, self.transform(x)
        full = torch.float64 if x.dtype == torch.float64 else torch.float32
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else full
        with torch.autocast(kind, enabled=False):
            out = _Propagation.apply(x.flatten(2), transformed.flatten(2), self.gamma, self.clamp, dtype)
        return out.view_as(x)

    def extra_repr(self) -> str:
        """Return the settings for `repr`."""
        return f"gamma={self.gamma}, clamp={self.clamp}"
