"""Projection heads on the maps of a trunk's earlier stages.

Shapes: B batch, C channels of the stage's map (H, W).
Source: `SepConv` and `auxiliary1..3` in `ImageNet/Contrastive_Deep_Supervision/resnet.py` of the code to Contrastive
Deep Supervision (ECCV 2022, arXiv 2207.05306).
"""

from __future__ import annotations

from torch import nn


def separable(channels: int, out: int, stride: int) -> list[nn.Module]:
    """Depthwise 3×3 convolution, pointwise convolution, BN, ReLU."""
    return [
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]


class StageHead(nn.Sequential):
    """Two separable convolutions for each stage still to come, then the average over all cells.

    (B, C, H, W) -> (B, C · 2^stages). The first of the two halves the map, the second doubles the channels, so a head
    ends in as many channels as the trunk does.

    Args:
        channels: C.
        stages: how many later stages the trunk has.
    """

    def __init__(self, channels: int, stages: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(stages):
            layers += separable(channels, channels, stride=2) + separable(channels, 2 * channels, stride=1)
            channels *= 2
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out = channels
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
