"""1×1 convolutions as matrix products, where that is faster."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_CELLS = 28 * 28
"""Cells of a map up to which a product beats a convolution on a CPU: by a sixth on average, by a third at 7 × 7 cells."""


FEW_CHANNELS = 8
"""With fewer input channels a strided convolution of oneDNN writes beside its memory (uxlfoundation/oneDNN issue 6035): it
crashes, or gives a wrong gradient."""


class Pointwise(nn.Conv2d):
    """1×1 convolution; parameters have the shapes and names of a convolution.

    On a CPU, a small map whose channels lie together in memory (channels_last) is a matrix already, and PyTorch's matrix product
    is faster than its convolution.
    """

    def __init__(self, channels: int, out: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__(channels, out, 1, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out, H / stride, W / stride), rounded up."""
        if self.stride[0] > 1:
            if x.device.type != "cpu" or self.in_channels >= FEW_CHANNELS:
                return super().forward(x)
            layout = (
                torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
            )
            x = x[..., :: self.stride[0], :: self.stride[1]].contiguous(memory_format=layout)
            return F.conv2d(x, self.weight, self.bias)
        small = x.dim() == 4 and x.shape[2] * x.shape[3] <= MOST_CELLS
        if small and x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last):
            weight = self.weight.permute(0, 2, 3, 1).flatten(1)  # permuted, so that its gradient is channels_last too
            return F.linear(x.permute(0, 2, 3, 1), weight, self.bias).permute(0, 3, 1, 2)
        return super().forward(x)
