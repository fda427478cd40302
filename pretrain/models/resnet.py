"""ResNet trunks with torchvision's parameter names and a width multiplier.

Shapes: B batch, H × W input pixels, w width multiplier. C2..C5 have 256w, 512w, 1024w, 2048w channels.
Own code rather than torchvision's class because that one fixes the stem at 64 channels; the parameter names, the stride in
the 3×3 convolution and the initialisation are the same (He fan-out; last BN gamma of each block 0, as the official PixPro
`contrast/resnet.py` does).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class TrunkSpec:
    """What has to be known to build a trunk. ``output_stride`` changes the maps, never the weights."""

    depth: int = 50
    width: float = 1.0
    output_stride: int = 32

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise ValueError(f"trunk depth {self.depth} is not known; choose one of {sorted(BLOCKS)}")
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"trunk output_stride {self.output_stride} is not possible; choose 8, 16 or 32")
        if self.width <= 0 or (64 * self.width) % 1:
            raise ValueError(f"trunk width {self.width} must be positive and make 64 × width a whole number")

    @property
    def channels(self) -> int:
        """Channels of C5."""
        return int(2048 * self.width)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def build(self, zero_init_residual: bool = True) -> ResNet:
        return ResNet(BLOCKS[self.depth], self.width, self.output_stride, zero_init_residual)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inplanes: int, planes: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inplanes, out, 1, stride, bias=False), nn.BatchNorm2d(out)) if project else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """Bottleneck ResNet without a classifier."""

    def __init__(
        self,
        blocks: tuple[int, ...] = BLOCKS[50],
        width: float = 1.0,
        output_stride: int = 32,
        zero_init_residual: bool = True,
    ) -> None:
        super().__init__()
        base = int(64 * width)
        self.conv1 = nn.Conv2d(3, base, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inplanes, stride_so_far, dilation = base, 4, 1
        for index, count in enumerate(blocks):
            planes, stride, first_dilation = base * 2**index, 1 if index == 0 else 2, dilation
            if stride_so_far * stride > output_stride:  # as torchvision: the first block keeps the old dilation
                dilation, stride = dilation * stride, 1
            stride_so_far *= stride
            layer = [Bottleneck(inplanes, planes, stride, first_dilation, project=True)]
            inplanes = planes * Bottleneck.expansion
            layer += [Bottleneck(inplanes, planes, 1, dilation, project=False) for _ in range(1, count)]
            setattr(self, f"layer{index + 1}", nn.Sequential(*layer))
        self.channels = inplanes
        self.reset_parameters(zero_init_residual)

    def reset_parameters(self, zero_init_residual: bool = True) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, Bottleneck):
                    nn.init.zeros_(module.bn3.weight)

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Maps of all `STAGES` for images ``x`` (B, 3, H, W); "stem" is after the max-pool, "layer4" is C5."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = {"stem": x}
        for name in STAGES[1:]:
            x = getattr(self, name)(x)
            maps[name] = x
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> C5 (B, channels, H / output_stride, W / output_stride), rounded up."""
        return self.forward_stages(x)["layer4"]
