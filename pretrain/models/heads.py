"""Small networks on top of a backbone.

Shapes: B batch, C channels, (H, W) map of cells.
"""

from __future__ import annotations

from torch import Tensor, nn

from pretrain.models.pointwise import Pointwise


class ConvHead(nn.Module):
    """1×1 convolution, BN, ReLU, 1×1 convolution, all with bias; applied to each cell separately.

    Source: `MLP2d` in `contrast/models/PixPro.py` (projector 2048-4096-256; two-layer transform of the PPM). Without
    ``batch_norm`` it is the dense part of `DenseCLNeck` in DenseCL's `openselfsup/models/necks.py`.
    """

    def __init__(self, channels: int, hidden: int, out: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.linear1 = Pointwise(channels, hidden)
        self.bn1 = nn.BatchNorm2d(hidden) if batch_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.linear2 = Pointwise(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out, H, W)."""
        return self.linear2(self.relu(self.bn1(self.linear1(x))))


class PooledHead(nn.Module):
    """Average over all cells, then two fully connected layers: one vector for each image.

    Without ``batch_norm`` the layers are linear (bias), ReLU, linear (bias): MoCo v2, `moco/builder.py`. With it they
    are linear, BN, ReLU, linear, BN, where BN replaces the biases and the last BN has no offset: SimCLR,
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
            self.bn2.bias.requires_grad_(False)  # stays 0; PyTorch cannot omit only the offset

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out)."""
        x = x.mean(dim=(2, 3))
        return self.bn2(self.linear2(self.relu(self.bn1(self.linear1(x)))))


class VectorHead(nn.Module):
    """Linear (bias), BN, ReLU, linear (no bias), on one vector for each image.

    Source: `MLP` in `byol/utils/networks.py` of BYOL's code (projector 2048-4096-256, predictor 256-4096-256).
    """

    def __init__(self, channels: int, hidden: int, out: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.relu = nn.ReLU(inplace=True)
        self.linear2 = nn.Linear(hidden, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels) to (B, out)."""
        return self.linear2(self.relu(self.bn1(self.linear1(x))))


class LinearHead(nn.Module):
    """Average over all cells, then one fully connected layer with bias: MoCo v1, or a classifier."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to (B, out)."""
        return self.linear(x.mean(dim=(2, 3)))


def _separable(channels: int, out: int, stride: int) -> list[nn.Module]:
    """Return a depthwise 3×3 convolution, a pointwise convolution, BN and ReLU."""
    return [
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]


class StageHead(nn.Sequential):
    """Two separable convolutions for each later stage of the backbone, then the average over all cells.

    Source: `SepConv` and `auxiliary1..3` in `ImageNet/Contrastive_Deep_Supervision/resnet.py` of the code of
    Contrastive Deep Supervision (ECCV 2022, arXiv 2207.05306).

    (B, C, H, W) -> (B, C · 2^stages). The first convolution of a pair halves the map, the second doubles the channels,
    so the output has as many channels as C5.

    Args:
        channels: C.
        stages: number of later stages of the backbone.
    """

    def __init__(self, channels: int, stages: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(stages):
            layers += _separable(channels, channels, stride=2) + _separable(channels, 2 * channels, stride=1)
            channels *= 2
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out = channels
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
