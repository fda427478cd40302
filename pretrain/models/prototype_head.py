"""Head of iBOT and DINO: a small network, then prototypes on the unit sphere.

Shapes: n tokens, C channels, D bottleneck, K prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.losses import unit


class PrototypeHead(nn.Module):
    """Three fully connected layers with GELU, L2 normalisation, and a linear layer with weight normalisation and no bias.

    Source: `iBOTHead` in `models/head.py` of bytedance/ibot, without batch norm.

    Args:
        channels: C.
        hidden: width of both hidden layers.
        bottleneck: D.
        prototypes: K of class tokens.
        patch_prototypes: K of patch tokens; 0 if they share the prototypes of class tokens.
        fixed_lengths: whether the prototypes keep the length 1; otherwise their lengths are trained.
    """

    def __init__(
        self, channels: int, hidden: int, bottleneck: int, prototypes: int, patch_prototypes: int, fixed_lengths: bool
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = _prototypes(bottleneck, prototypes, fixed_lengths)
        self.patch_prototypes = _prototypes(bottleneck, patch_prototypes, fixed_lengths) if patch_prototypes else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (n, C) to unit vectors (n, D)."""
        return unit(self.mlp(tokens))

    def class_logits(self, x: Tensor) -> Tensor:
        """Map unit vectors (n, D) of class tokens to logits (n, K)."""
        logits: Tensor = self.prototypes(x)
        return logits

    def patch_logits(self, x: Tensor) -> Tensor:
        """Map unit vectors (n, D) of patch tokens to logits (n, K)."""
        logits: Tensor = (self.patch_prototypes or self.prototypes)(x)
        return logits

    def last_layer(self) -> list[nn.Parameter]:
        """Return the parameters of the prototypes."""
        layers = [self.prototypes, *([self.patch_prototypes] if self.patch_prototypes else [])]
        return [parameter for layer in layers for parameter in layer.parameters()]


def _prototypes(dim: int, count: int, fixed_lengths: bool) -> nn.Module:
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(dim, count, bias=False))
    lengths: nn.Parameter = layer.parametrizations.weight.original0
    nn.init.ones_(lengths)
    lengths.requires_grad_(not fixed_lengths)
    return layer
