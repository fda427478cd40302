"""Shunted Transformer: within one attention layer, half of the heads reads coarser keys and values than the other half.

Ren et al., CVPR 2022, arXiv 2111.15193; public code: OliverRensu/Shunted-Transformer (`SSA.py`).

The names of the parameters are those of the authors' classification checkpoints (Shunted-T, -S and -B) without
`head.weight` and `head.bias`. All four maps are normalised, as there.

The public code takes only sizes that all its strides divide. Here zeros fill up the image and the maps below and on the
right where they do not; at 224 pixels, and at all multiples of 32, nothing is filled up.

Shapes: B images, H × W pixels, h × w cells, N = h · w, C channels, d channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from pixbench.errors import UserError

Norm = partial(nn.LayerNorm, eps=1e-6)


def depthwise(dim: int) -> nn.Conv2d:
    """Return a 3 × 3 convolution of each channel by itself."""
    return nn.Conv2d(dim, dim, 3, padding=1, groups=dim)


def on_map(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply ``conv`` to ``x`` (B, h, w, C), channels last."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ShuntedAttention(nn.Module):
    """Attention to merged cells: r × r cells become one for the first half of the heads, r/2 × r/2 for the second half.

    With r = 1 all heads read all cells. The values get a depthwise convolution of themselves; with r = 1 it is added
    after the attention instead, as in the public code.
    """

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads, self.ratio = heads, ratio
        self.q, self.proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        if ratio == 1:
            self.kv, self.local_conv = nn.Linear(dim, 2 * dim), depthwise(dim)
            return
        self.sr1, self.norm1 = nn.Conv2d(dim, dim, ratio, ratio), nn.LayerNorm(dim)
        self.sr2, self.norm2 = nn.Conv2d(dim, dim, ratio // 2, ratio // 2), nn.LayerNorm(dim)
        self.kv1, self.local_conv1 = nn.Linear(dim, dim), depthwise(dim // 2)
        self.kv2, self.local_conv2 = nn.Linear(dim, dim), depthwise(dim // 2)

    def merged(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the merged cells of ``x`` (B, h, w, C): (B, ⌈h/r⌉, ⌈w/r⌉, C) and (B, 2⌈h/r⌉, 2⌈w/r⌉, C)."""
        x = functional.pad(x, (0, 0, 0, -x.shape[2] % self.ratio, 0, -x.shape[1] % self.ratio))
        coarse, fine = self.norm1(on_map(self.sr1, x)), self.norm2(on_map(self.sr2, x))
        return functional.gelu(coarse), functional.gelu(fine)

    def split(self, x: Tensor) -> Tensor:
        """Return the heads (B, heads, N, d) of ``x`` (B, h, w, heads · d)."""
        return x.flatten(1, 2).unflatten(-1, (-1, self.q.out_features // self.heads)).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return what the queries (B, heads, N, d) read from the maps ``k`` and ``v``: (B, N, heads · d)."""
        return functional.scaled_dot_product_attention(q, self.split(k), self.split(v)).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, C) to (B, h, w, C)."""
        q = self.split(self.q(x))
        if self.ratio == 1:
            k, v = self.kv(x).chunk(2, -1)
            return self.proj(self.attend(q, k, v).view(x.shape) + on_map(self.local_conv, v))
        coarse, fine = self.merged(x)
        first, second = q.chunk(2, 1)
        k1, v1 = self.kv1(coarse).chunk(2, -1)
        k2, v2 = self.kv2(fine).chunk(2, -1)
        read1 = self.attend(first, k1, v1 + on_map(self.local_conv1, v1))
        read2 = self.attend(second, k2, v2 + on_map(self.local_conv2, v2))
        return self.proj(torch.cat([read1, read2], -1).view(x.shape))


class DepthwiseConv(nn.Module):
    """A depthwise convolution of a map with channels last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = depthwise(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, C) to (B, h, w, C)."""
        return on_map(self.dwconv, x)


class Mlp(nn.Module):
    """Two linear layers; the hidden cells see their neighbours by a depthwise convolution."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.dwconv, self.fc2 = nn.Linear(dim, hidden), DepthwiseConv(hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, C) to (B, h, w, C)."""
        x = self.fc1(x)
        return self.fc2(functional.gelu(x + self.dwconv(x)))


class Block(nn.Module):
    """Shunted attention and an MLP, each after a norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int, ratio: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.attn = Norm(dim), ShuntedAttention(dim, heads, ratio)
        self.norm2, self.mlp = Norm(dim), Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, C) to (B, h, w, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stem(nn.Module):
    """A 7 × 7 convolution of stride 2, ``convs`` more of 3 × 3, one of 2 × 2 with stride 2, and a norm."""

    def __init__(self, dim: int, convs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, dim, 7, 2, 3, bias=False), nn.BatchNorm2d(dim), nn.ReLU(True)]
        for _ in range(convs):
            layers += [nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim), nn.ReLU(True)]
        self.conv, self.norm = nn.Sequential(*layers, nn.Conv2d(dim, dim, 2, 2)), nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, ⌈H/4⌉, ⌈W/4⌉, C)."""
        images = functional.pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4))
        return self.norm(self.conv(images).permute(0, 2, 3, 1))


class Downsampler(nn.Module):
    """A 3 × 3 convolution of stride 2 that doubles the channels, and a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(dim // 2, dim, 3, 2, 1), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, h, w, C/2) to (B, ⌈h/2⌉, ⌈w/2⌉, C)."""
        return self.norm(on_map(self.proj, x))


class ShuntedTransformer(nn.Module):
    """Backbone of images (B, 3, H, W) of any size; its four maps are (B, C_i, ⌈H/s_i⌉, ⌈W/s_i⌉), finest first.

    Args:
        depths: number of blocks of the four stages.
        width: channels of the first stage; each further one has twice as many.
        head_dim: channels of a head.
        stem_convs: additional convolutions of the stem.
        drop_path: stochastic depth of the last block, 0 for the first, in between linearly (the authors train T, S and B
            with 0.1, 0.2 and 0.3).

    Attributes:
        channels: C_i of each map.
        strides: s_i of each map in pixels.
    """

    strides = (4, 8, 16, 32)

    def __init__(
        self, depths: Sequence[int], width: int = 64, head_dim: int = 32, stem_convs: int = 0, drop_path: float = 0
    ) -> None:
        super().__init__()
        if len(depths) != 4 or width % (2 * head_dim):
            raise UserError(
                f"ShuntedTransformer: depths {list(depths)} must have 4 numbers, and width {width} be a multiple of twice "
                f"head_dim {head_dim}; change these options"
            )
        self.channels = (width, 2 * width, 4 * width, 8 * width)
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        ratios, mlp_ratios = (8, 4, 2, 1), (8, 8, 4, 4)
        for stage, (dim, depth, ratio, mlp) in enumerate(
            zip(self.channels, depths, ratios, mlp_ratios, strict=True), 1
        ):
            blocks = [Block(dim, dim // head_dim, ratio, mlp, next(rates)) for _ in range(depth)]
            self.add_module(f"patch_embed{stage}", Stem(dim, stem_convs) if stage == 1 else Downsampler(dim))
            self.add_module(f"block{stage}", nn.Sequential(*blocks))
            self.add_module(f"norm{stage}", Norm(dim))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the four maps of ``images`` (B, 3, H, W), finest first, all normalised."""
        x, maps = images, []
        for stage in range(1, 5):
            for part in ("patch_embed", "block"):
                x = self.get_submodule(f"{part}{stage}")(x)
            x = self.get_submodule(f"norm{stage}")(x)
            maps.append(x.permute(0, 3, 1, 2))
        return maps


def shunted_tiny(**options: Any) -> ShuntedTransformer:
    """Return Shunted-T (11.5 M parameters), with other ``options`` of `ShuntedTransformer` where they are given."""
    return ShuntedTransformer(**{"depths": (1, 2, 4, 1), "stem_convs": 0, **options})


def shunted_small(**options: Any) -> ShuntedTransformer:
    """Return Shunted-S (22.4 M parameters), with other ``options`` of `ShuntedTransformer` where they are given."""
    return ShuntedTransformer(**{"depths": (2, 4, 12, 1), "stem_convs": 1, **options})


def shunted_base(**options: Any) -> ShuntedTransformer:
    """Return Shunted-B (39.6 M parameters), with other ``options`` of `ShuntedTransformer` where they are given."""
    return ShuntedTransformer(**{"depths": (3, 4, 24, 2), "stem_convs": 2, **options})
