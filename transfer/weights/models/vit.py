"""A plain ViT without class token, the reference with which ViT weights are verified.

Shapes: B images of H × W pixels, h × w patches, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transfer.weights.vit_spec import VitSpec

NORM_EPS = 1e-6
"""Of all layer norms, as in timm, DINO, iBOT and MAE."""


class PatchEmbed(nn.Module):
    """Patch embedding by one convolution."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, spec.width, spec.patch, spec.patch)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches: (B, 3, H, W) -> (B, h, w, D)."""
        return self.proj(x).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend from every patch to all patches: (B, hw, D) -> (B, hw, D)."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers: (..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Transformer block: pre-norm attention and MLP, each with a residual connection."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.width, eps=NORM_EPS)
        self.attn = Attention(spec.width, spec.heads)
        self.norm2 = nn.LayerNorm(spec.width, eps=NORM_EPS)
        self.mlp = Mlp(spec.width)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: (B, h, w, D) -> (B, h, w, D)."""
        x = x + self.attn(self.norm1(x).flatten(1, 2)).view(x.shape)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Plain ViT without class token and last norm."""

    def __init__(self, spec: VitSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(spec)
        self.pos_embed = nn.Parameter(torch.zeros(1, (spec.image // spec.patch) ** 2 + 1, spec.width))
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps (B, h, w, D) of patches and all blocks for images (B, 3, H, W); positions are resized bicubically."""
        x = self.patch_embed(x)
        maps, side = {"patch_embed": x}, self.spec.image // self.spec.patch
        grid = self.pos_embed[:, 1:].view(1, side, side, -1).permute(0, 3, 1, 2)
        if x.shape[1:3] != (side, side):
            grid = F.interpolate(grid, size=x.shape[1:3], mode="bicubic", align_corners=False)
        x = x + grid.permute(0, 2, 3, 1)
        for number, block in enumerate(self.blocks):
            x = block(x)
            maps[f"block {number + 1}"] = x
        return maps
