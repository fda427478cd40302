"""Neighborhood Attention Transformer (NAT): each cell attends to the k × k cells nearest to it.

Hassani et al., CVPR 2023, arXiv 2204.07143; public code: SHI-Labs/Neighborhood-Attention-Transformer. Its kernels come
from the library NATTEN; this file is plain PyTorch.

The names of the parameters are those of the authors' classification checkpoints (`nat_mini.pth`, `nat_tiny.pth`) without
`head.weight` and `head.bias`. As there, only the coarsest map is normalised at the end; the authors' detection code adds
a norm of its own to each map.

As in the public code, the biases are added to the scaled scores. What differs from it: if a map is smaller than the
neighbourhood, a cell attends to the whole side of the map, which is the paper's limit of self-attention. The public code
attends to zeros around the map there. That concerns images below 224 pixels.

The keys and values of all neighbourhoods are gathered, so the memory grows with k² · cells, not with cells².

Shapes: B images, H × W pixels, h × w cells, N = h · w, C channels, K neighbours of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from pixbench.errors import UserError


def nearest(size: int, kernel: int) -> Tensor:
    """Return the ``kernel`` nearest cells (size, kernel) of each of the ``size`` cells of an axis.

    A cell near an end has as many neighbours as any other: its window is moved inwards, and is not centred on it.
    """
    kernel = min(kernel, size)
    first = (torch.arange(size) - kernel // 2).clamp(0, size - kernel)
    return first[:, None] + torch.arange(kernel)


def neighbourhoods(height: int, width: int, kernel: int) -> tuple[Tensor, Tensor]:
    """Return the neighbours of all cells and their biases, both (N, K): positions in a flat map, and in a flat `rpb`.

    A bias belongs to the offset from the cell to its neighbour, which is between −(kernel − 1) and kernel − 1.
    """
    rows, columns = nearest(height, kernel), nearest(width, kernel)
    row_offsets = rows - torch.arange(height)[:, None] + kernel - 1
    column_offsets = columns - torch.arange(width)[:, None] + kernel - 1

    def pairs(rows: Tensor, columns: Tensor, row_length: int) -> Tensor:
        flat = rows[:, None, :, None] * row_length + columns[None, :, None, :]  # (h, w, kernel, kernel)
        return flat.flatten(2).flatten(0, 1)

    return pairs(rows, columns, width), pairs(row_offsets, column_offsets, 2 * kernel - 1)


class NeighborhoodAttention(nn.Module):
    """Attention of each cell to its nearest cells, with a learned bias for each head and offset."""

    def __init__(self, dim: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads, self.kernel = heads, kernel
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rpb = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, 2 * kernel - 1, 2 * kernel - 1), std=0.02))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the cells of ``x`` (B, h, w, C) read from their neighbours, in the same shape."""
        cells, offsets = (index.to(x.device) for index in neighbourhoods(x.shape[1], x.shape[2], self.kernel))
        q, k, v = (
            self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, heads, N, d)
        q = (q * q.shape[-1] ** -0.5).unsqueeze(-2)
        scores = q @ k[:, :, cells].transpose(-2, -1) + self.rpb.flatten(1)[:, offsets].unsqueeze(-2)
        read = scores.softmax(-1) @ v[:, :, cells]  # (B, heads, N, 1, K) @ (B, heads, N, K, d)
        return self.proj(read.squeeze(-2).transpose(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, C) to (…, C)."""
        return self.fc2(self.act(self.fc1(x)))


class Layer(nn.Module):
    """Neighbourhood attention and an MLP, each after a norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int, kernel: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), NeighborhoodAttention(dim, heads, kernel)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, C) to (B, h, w, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Tokenizer(nn.Module):
    """Two 3 × 3 convolutions of stride 2, without an activation between them, and a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(3, dim // 2, 3, 2, 1), nn.Conv2d(dim // 2, dim, 3, 2, 1))
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, H/4, W/4, C)."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class Downsampler(nn.Module):
    """A 3 × 3 convolution of stride 2 that doubles the channels, and a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction, self.norm = nn.Conv2d(dim, 2 * dim, 3, 2, 1, bias=False), nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, C) to (B, h/2, w/2, 2C)."""
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Level(nn.Module):
    """The layers of one resolution, and the way to the next one if there is one."""

    def __init__(self, layers: list[Layer], downsample: Downsampler | None) -> None:
        super().__init__()
        self.blocks, self.downsample = nn.Sequential(*layers), downsample

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map of this level (B, h, w, C) and what the next level gets, which is the same map after the last."""
        x = self.blocks(x)
        return x, x if self.downsample is None else self.downsample(x)


class NAT(nn.Module):
    """Backbone of images (B, 3, H, W) of any size; its maps are (B, C_i, ⌈H/s_i⌉, ⌈W/s_i⌉), finest first.

    Args:
        depths: number of layers of each level.
        width: channels of the first level; each further one has twice as many.
        head_dim: channels of a head.
        kernel: side k of a neighbourhood in cells, odd.
        mlp_ratio: hidden channels of the MLPs for each of their channels.
        drop_path: stochastic depth of the last layer, 0 for the first, in between linearly (the authors train with 0.2).

    Attributes:
        channels: C_i of each map.
        strides: s_i of each map in pixels.
    """

    def __init__(
        self,
        depths: Sequence[int],
        width: int = 64,
        head_dim: int = 32,
        kernel: int = 7,
        mlp_ratio: float = 3,
        drop_path: float = 0,
    ) -> None:
        super().__init__()
        if width % head_dim or width % 2 or kernel % 2 == 0:
            raise UserError(
                f"NAT: width {width} must be even and a multiple of head_dim {head_dim}, and kernel {kernel} odd; change "
                "these options"
            )
        self.channels = tuple(width * 2**level for level in range(len(depths)))
        self.strides = tuple(4 * 2**level for level in range(len(depths)))
        self.patch_embed = Tokenizer(width)
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        self.levels = nn.ModuleList()
        for dim, depth in zip(self.channels, depths, strict=True):
            layers = [Layer(dim, dim // head_dim, kernel, mlp_ratio, next(rates)) for _ in range(depth)]
            self.levels.append(Level(layers, Downsampler(dim) if dim < self.channels[-1] else None))
        self.norm = nn.LayerNorm(self.channels[-1])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of ``images`` (B, 3, H, W), finest first; the coarsest one is normalised."""
        x, maps = self.patch_embed(images), []
        for level in self.levels:
            finished, x = level(x)
            maps.append(finished)
        return [x.permute(0, 3, 1, 2) for x in (*maps[:-1], self.norm(maps[-1]))]


def nat_mini(**options: Any) -> NAT:
    """Return NAT-Mini (20 M parameters), with other ``options`` of `NAT` where they are given."""
    return NAT(**{"depths": (3, 4, 6, 5), **options})


def nat_tiny(**options: Any) -> NAT:
    """Return NAT-Tiny (28 M parameters), with other ``options`` of `NAT` where they are given."""
    return NAT(**{"depths": (3, 4, 18, 5), **options})
