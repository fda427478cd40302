"""Small networks on top of a trunk.

Shapes: B batch, C channels, (H, W) map of cells.
"""

from __future__ import annotations

from torch import Tensor, nn


class ConvHead(nn.Module):
    """1×1 convolution, BN, ReLU, 1×1 convolution, all with bias: the same small network at every cell.

    Source: `MLP2d` in `contrast/models/PixPro.py` (projector 2048-4096-256; two-layer transform of the PPM). Without
    ``batch_norm``: the dense half of `DenseCLNeck` in DenseCL's `openselfsup/models/necks.py`.
    """

    def __init__(self, channels: int, hidden: int, out: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.linear1 = nn.Conv2d(channels, hidden, 1)
        self.bn1 = nn.BatchNorm2d(hidden) if batch_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.linear2 = nn.Conv2d(hidden, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out, H, W)."""
        return self.linear2(self.relu(self.bn1(self.linear1(x))))


class PooledHead(nn.Module):
    """Average over all cells, then fully connected layers: one vector an image.

    Without ``batch_norm`` the layers are linear (bias), ReLU, linear (bias): MoCo v2, `moco/builder.py`. With it they
    are linear, BN, ReLU, linear, BN, where BN takes the place of the biases and the last one has no offset: SimCLR,
    `projection_head` in `model_util.py` with `num_proj_layers=2`.
    """

    def __init__(self, channels: int, hidden: int, out: int, batch_norm: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden, bias=not batch_norm)
        self.bn1 = nn.BatchNorm1d(hidden) if batch_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.linear2 = nn.Linear(hidden, out, bias=not batch_norm)
        self.bn2 = nn.BatchNorm1d(out) if batch_norm else nn.Identity()
        if batch_norm:
            self.bn2.bias.requires_grad_(False)  # stays 0; PyTorch cannot leave out the offset alone

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out)."""
        x = x.mean(dim=(2, 3))
        return self.bn2(self.linear2(self.relu(self.bn1(self.linear1(x)))))


class VectorHead(nn.Module):
    """Linear (bias), BN, ReLU, linear (no bias), on one vector an image.

    Source: `MLP` in `byol/utils/networks.py` of BYOL's code (projector 2048-4096-256, predictor 256-4096-256).
    """

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.linear2 = nn.Linear(hidden, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels) -> (B, out)."""
        return self.linear2(self.relu(self.bn1(self.linear1(x))))


class LinearHead(nn.Module):
    """Average over all cells, then one fully connected layer with bias: MoCo v1, or a classifier."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out)."""
        return self.linear(x.mean(dim=(2, 3)))
