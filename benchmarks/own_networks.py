"""Two small networks as users write them (`MODULE:FUNCTION`): examples of their families in `benchmarks.families`.

Shapes: B images of H × W pixels, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn


class Hierarchical(nn.Module):
    """Network with maps of strides 4, 8, 16 and 32."""

    channels, strides = (8, 16, 24, 32), (4, 8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        before = (3, *self.channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(before[i], out, 7 if i == 0 else 3, 4 if i == 0 else 2, 3 if i == 0 else 1)
            for i, out in enumerate(self.channels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps (B, C, H / stride, W / stride) for images ``x`` (B, 3, H, W)."""
        maps = []
        for layer in self.layers:
            x = layer(x).relu()
            maps.append(x)
        return maps


class Plain(nn.Module):
    """Network with four maps of stride 16."""

    channels, strides = (16, 16, 16, 16), (16, 16, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, self.channels[0], 16, 16)
        self.layers = nn.ModuleList(nn.Conv2d(self.channels[0], out, 1) for out in self.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps (B, C, H / 16, W / 16) for images ``x`` (B, 3, H, W) of whole patches."""
        x = self.patches(x)
        maps = []
        for layer in self.layers:
            x = x + layer(x).relu()
            maps.append(x)
        return maps
