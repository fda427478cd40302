"""ResNet backbones with torchvision's parameter names and a width multiplier.

Shapes: B batch, H × W input pixels, w width multiplier. C2..C5 have 256w, 512w, 1024w, 2048w channels.
This is own code because torchvision's class always has 64 channels in the stem. The parameter names, the stride in the
3×3 convolution and the initialisation are the same (He fan-out; the last BN gamma of each block is 0, as in
`contrast/resnet.py` of the official PixPro code). A deep stem replaces ``conv1`` and ``bn1``; its parts are called
``stem.0`` (convolution), ``stem.1`` (norm), ``stem.3``, ``stem.4``, ``stem.6``, ``stem.7``, as in MMSegmentation.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.models.backbone_spec import BLOCKS, STAGES, BackboneSpec


class Bottleneck(nn.Module):
    """Block of a 1×1, a 3×3 and a 1×1 convolution, added to a shortcut.

    ``project`` puts a convolution into the shortcut; for the other flags see `BackboneSpec`.
    """

    expansion = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int,
        dilation: int,
        project: bool,
        stride_in_1x1: bool = False,
        avg_down: bool = False,
    ) -> None:
        super().__init__()
        out = planes * self.expansion
        first, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(inplanes, planes, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride_3x3, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.pool = stride if avg_down else 1
        self.downsample = (
            nn.Sequential(nn.Conv2d(inplanes, out, 1, stride // self.pool, bias=False), nn.BatchNorm2d(out))
            if project
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inplanes, H, W) to (B, 4 · planes, H / stride, W / stride), rounded up."""
        shortcut = x if self.pool == 1 else F.avg_pool2d(x, self.pool, ceil_mode=True, count_include_pad=False)
        shortcut = x if self.downsample is None else self.downsample(shortcut)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


def _unit(inplanes: int, planes: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """Return one third of a deep stem: 3×3 convolution, BN and ReLU."""
    conv = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
    return conv, nn.BatchNorm2d(planes), nn.ReLU(inplace=True)


class ResNet(nn.Module):
    """Bottleneck ResNet without a classifier."""

    def __init__(
        self,
        blocks: tuple[int, ...] = BLOCKS[50],
        width: float = 1.0,
        output_stride: int = 32,
        zero_init_residual: bool = True,
        stem: str = "7x7",
        stride_in_1x1: bool = False,
        avg_down: bool = False,
    ) -> None:
        super().__init__()
        base = int(64 * width)
        if stem == "deep":
            half = base // 2
            self.stem = nn.Sequential(*_unit(3, half, 2), *_unit(half, half), *_unit(half, base))
        else:
            self.conv1 = nn.Conv2d(3, base, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(base)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inplanes, stride_so_far, dilation = base, 4, 1
        for index, count in enumerate(blocks):
            planes, stride, first_dilation = base * 2**index, 1 if index == 0 else 2, dilation
            if stride_so_far * stride > output_stride:  # as in torchvision, the first block keeps the old dilation
                dilation, stride = dilation * stride, 1
            stride_so_far *= stride
            layer = [Bottleneck(inplanes, planes, stride, first_dilation, True, stride_in_1x1, avg_down)]
            inplanes = planes * Bottleneck.expansion
            layer += [Bottleneck(inplanes, planes, 1, dilation, project=False) for _ in range(1, count)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*layer))
        self.channels = inplanes
        self.reset_parameters(zero_init_residual)

    def reset_parameters(self, zero_init_residual: bool = True) -> None:
        """Initialise all convolutions and, if ``zero_init_residual``, set the last BN gamma of each block to 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, Bottleneck):
                    nn.init.zeros_(module.bn3.weight)

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps of all `STAGES` for images ``x`` (B, 3, H, W); "stem" is after the pooling, "layer4" is C5."""
        x = self.maxpool(self.stem(x) if hasattr(self, "stem") else self.relu(self.bn1(self.conv1(x))))
        maps = {"stem": x}
        for name in STAGES[1:]:
            x = getattr(self, name)(x)
            maps[name] = x
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return C5 (B, channels, H / output_stride, W / output_stride), rounded up, for images ``x`` (B, 3, H, W)."""
        return self.forward_stages(x)["layer4"]


def build_resnet(spec: BackboneSpec, zero_init_residual: bool = True) -> ResNet:
    """Return a newly initialised ResNet for ``spec``."""
    return ResNet(
        BLOCKS[spec.depth],
        spec.width,
        spec.output_stride,
        zero_init_residual,
        spec.stem,
        spec.stride_in_1x1,
        spec.avg_down,
    )
