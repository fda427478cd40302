"""UniFormer, image version: local affinity by depthwise convolutions first, global attention in the coarser stages.

Li et al., ICLR 2022, arXiv 2201.04676 (and its extension 2201.09450); public code: Sense-X/UniFormer.

The names of the parameters are those of the authors' classification checkpoints without layer scale
(`uniformer_small_in1k.pth`, `uniformer_base_in1k.pth`) without `head.weight` and `head.bias`.
As there, only the coarsest map is normalised at the end; the authors' dense-prediction code adds a LayerNorm of its own
to each map. The third stage attends to the whole map; the windows of that code, which save memory at large images and
have no parameters, are left out.

Shapes: B images, H × W pixels, h × w cells, N = h · w, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from pixbench.errors import UserError

PointwiseConv = partial(nn.Conv2d, kernel_size=1)
Norm = partial(nn.LayerNorm, eps=1e-6)


class Mlp(nn.Module):
    """Two layers of ``layer``, which is a linear layer or a pointwise convolution."""

    def __init__(self, dim: int, hidden: int, layer: Any) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = layer(dim, hidden), nn.GELU(), layer(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x``."""
        return self.fc2(self.act(self.fc1(x)))


class LocalBlock(nn.Module):
    """Position encoding, local relation aggregator and MLP, all by convolutions.

    The aggregator is pointwise, depthwise 5 × 5, pointwise: each channel has one affinity, learned and the same for all
    cells, to the 5 × 5 cells around a cell.
    """

    def __init__(self, dim: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv1, self.conv2 = PointwiseConv(dim, dim), PointwiseConv(dim, dim)
        self.attn = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), PointwiseConv)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        x = x + self.pos_embed(x)
        x = x + self.drop_path(self.conv2(self.attn(self.conv1(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Self-attention of all cells with each other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, N, d)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GlobalBlock(nn.Module):
    """Position encoding by a convolution, self-attention and MLP."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1, self.attn = Norm(dim), Attention(dim, heads)
        self.norm2, self.mlp = Norm(dim), Mlp(dim, int(dim * mlp_ratio), nn.Linear)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        size = x.shape[2:]
        x = (x + self.pos_embed(x)).flatten(2).transpose(1, 2)  # (B, N, C)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        return x.transpose(1, 2).unflatten(2, size)


class PatchEmbed(nn.Module):
    """One vector for each patch of ``stride`` × ``stride`` cells or pixels, normalised."""

    def __init__(self, before: int, dim: int, stride: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(before, dim, stride, stride), nn.LayerNorm(dim)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C', ⌈h/stride⌉, ⌈w/stride⌉); zeros fill up the last patches."""
        x = functional.pad(x, (0, -x.shape[3] % self.stride, 0, -x.shape[2] % self.stride))
        return self.norm(self.proj(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class UniFormer(nn.Module):
    """Backbone of images (B, 3, H, W) of any size; its four maps are (B, C_i, ⌈H/s_i⌉, ⌈W/s_i⌉), finest first.

    Args:
        depths: number of blocks of the four stages: local in the first two, global in the last two.
        widths: channels of the four stages.
        head_dim: channels of a head of the global blocks.
        mlp_ratio: hidden channels of the MLPs for each of their channels.
        drop_path: stochastic depth of the last block, 0 for the first, in between linearly (the authors train
            UniFormer-S with 0.1 and UniFormer-B with 0.3).

    Attributes:
        channels: C_i of each map.
        strides: s_i of each map in pixels.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int] = (64, 128, 320, 512),
        head_dim: int = 64,
        mlp_ratio: float = 4,
        drop_path: float = 0,
    ) -> None:
        super().__init__()
        if not len(depths) == len(widths) == 4 or any(dim % head_dim for dim in widths[2:]):
            raise UserError(
                f"UniFormer: depths {list(depths)} and widths {list(widths)} must have 4 numbers, and the last two widths be "
                f"multiples of head_dim {head_dim}; change these options"
            )
        self.channels = tuple(widths)
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        before = 3
        for stage, (dim, depth) in enumerate(zip(widths, depths, strict=True), 1):
            blocks: list[nn.Module] = [
                LocalBlock(dim, mlp_ratio, next(rates))
                if stage <= 2
                else GlobalBlock(dim, dim // head_dim, mlp_ratio, next(rates))
                for _ in range(depth)
            ]
            self.add_module(f"patch_embed{stage}", PatchEmbed(before, dim, 4 if stage == 1 else 2))
            self.add_module(f"blocks{stage}", nn.Sequential(*blocks))
            before = dim
        self.norm = nn.BatchNorm2d(before)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four maps of ``images`` (B, 3, H, W), finest first; the coarsest one is normalised."""
        x, maps = images, []
        for stage in range(1, 5):
            x = self.get_submodule(f"blocks{stage}")(self.get_submodule(f"patch_embed{stage}")(x))
            maps.append(x)
        return [*maps[:3], self.norm(x)]


def uniformer_small(**options: Any) -> UniFormer:
    """Return UniFormer-S (22 M parameters), with other ``options`` of `UniFormer` where they are given."""
    return UniFormer(**{"depths": (3, 4, 8, 3), **options})


def uniformer_base(**options: Any) -> UniFormer:
    """Return UniFormer-B (50 M parameters), with other ``options`` of `UniFormer` where they are given."""
    return UniFormer(**{"depths": (5, 8, 20, 7), **options})
