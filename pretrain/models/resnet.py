"""ResNet backbones with torchvision's parameter names and a width multiplier.

Shapes: B batch, H × W input pixels, w width multiplier. C2..C5 have 256w, 512w, 1024w, 2048w channels, or 64w, 128w, 256w,
512w with basic blocks.
This is own code because torchvision's class always has 64 channels in the stem. The parameter names, the stride in the
3×3 convolution and the initialisation are the same (He fan-out; the last BN gamma of each block is 0, as in
`contrast/resnet.py` of the official PixPro code). A deep stem replaces ``conv1`` and ``bn1``; its parts are called
``stem.0`` (convolution), ``stem.1`` (norm), ``stem.3``, ``stem.4``, ``stem.6``, ``stem.7``, as in MMSegmentation. The 3×3 stem
has ``conv1`` and ``bn1``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.models.backbone_spec import BLOCKS, STAGES, BackboneSpec
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.pointwise import Pointwise
from pretrain.models.recompute import recompute_blocks


def _conv(inplanes: int, out: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, padded so that only the stride changes the size of a map."""
    if kernel == groups == 1:
        return Pointwise(inplanes, out, stride, bias=False)
    return nn.Conv2d(inplanes, out, kernel, stride, kernel // 2 * dilation, dilation, groups, bias=False)


class Block(nn.Module):
    """Residual block: convolutions with batch norm, added to a shortcut.

    The shortcut has a convolution if the block changes the size or the number of channels. With ``avg_down`` this
    convolution does not stride, but an average before it does.
    """

    def __init__(self, convolutions: Sequence[nn.Conv2d], stride: int, avg_down: bool) -> None:
        super().__init__()
        inplanes, out = convolutions[0].in_channels, convolutions[-1].out_channels
        self.numbers = range(1, len(convolutions) + 1)
        for number, conv in zip(self.numbers, convolutions, strict=True):
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(conv.out_channels))
        self.relu = nn.ReLU(inplace=True)
        self.pool = stride if avg_down else 1
        self.downsample = (
            nn.Sequential(_conv(inplanes, out, 1, stride // self.pool), nn.BatchNorm2d(out))
            if stride > 1 or inplanes != out
            else None
        )

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """Norm before the sum with the shortcut."""
        norm: nn.BatchNorm2d = getattr(self, f"bn{self.numbers[-1]}")
        return norm

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride), rounded up."""
        shortcut = x if self.pool == 1 else F.avg_pool2d(x, self.pool, ceil_mode=True, count_include_pad=False)
        shortcut = x if self.downsample is None else self.downsample(shortcut)
        for number in self.numbers:
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = self.relu(x if number < self.numbers[-1] else x.add_(shortcut))  # nothing else needs the norm's result
        return x


class BasicBlock(Block):
    """Block of two 3×3 convolutions.

    ``dilations`` are those of a convolution that may stride and of one after it. They differ in the first block of a stage
    whose stride was replaced by dilation.
    """

    def __init__(
        self, inplanes: int, planes: int, stride: int, dilations: tuple[int, int], avg_down: bool = False
    ) -> None:
        first, second = dilations
        convolutions = _conv(inplanes, planes, 3, stride, first), _conv(planes, planes, 3, 1, second)
        super().__init__(convolutions, stride, avg_down)


class Bottleneck(Block):
    """Block of a 1×1, a 3×3 and a 1×1 convolution; only the 3×3 one is dilated. For the options see `BackboneSpec`."""

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int,
        dilations: tuple[int, int],
        avg_down: bool = False,
        stride_in_1x1: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        inner = planes * width_per_group // 64 * groups
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        convolutions = (
            _conv(inplanes, inner, 1, stride_1x1),
            _conv(inner, inner, 3, stride_3x3, dilations[0], groups),
            _conv(inner, 4 * planes, 1),
        )
        super().__init__(convolutions, stride, avg_down)


def _unit(inplanes: int, planes: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """Return one third of a deep stem: 3×3 convolution, BN and ReLU."""
    return _conv(inplanes, planes, 3, stride), nn.BatchNorm2d(planes), nn.ReLU(inplace=True)


class ResNet(FeatureNetwork):
    """ResNet without a classifier; for the options see `BackboneSpec`."""

    def __init__(
        self,
        blocks: tuple[int, ...] = BLOCKS[50],
        width: float = 1.0,
        output_stride: int = 32,
        zero_init_residual: bool = True,
        stem: str = "7x7",
        stride_in_1x1: bool = False,
        avg_down: bool = False,
        basic: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        base, small = int(64 * width), stem == "3x3"
        if stem == "deep":
            half = base // 2
            self.stem = nn.Sequential(*_unit(3, half, 2), *_unit(half, half), *_unit(half, base))
        else:
            self.conv1 = _conv(3, base, 3) if small else _conv(3, base, 7, 2)
            self.bn1 = nn.BatchNorm2d(base)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        bottleneck = partial(Bottleneck, stride_in_1x1=stride_in_1x1, groups=groups, width_per_group=width_per_group)
        block: Callable[..., Block] = BasicBlock if basic else bottleneck
        inplanes, stride_so_far, dilation = base, 1 if small else 4, 1
        self.stage_channels, self.stage_strides = {"stem": base}, {"stem": stride_so_far}
        for index, count in enumerate(blocks):
            planes, stride, first_dilation = base * 2**index, 1 if index == 0 else 2, dilation
            if stride_so_far * stride > output_stride:  # as in torchvision, the first block keeps the old dilation
                dilation, stride = dilation * stride, 1
            stride_so_far *= stride
            layer = [block(inplanes, planes, stride, (first_dilation, dilation), avg_down)]
            inplanes = layer[0].last_norm.num_features
            layer += [block(inplanes, planes, 1, (dilation, dilation)) for _ in range(1, count)]
            setattr(self, name := f"layer{index + 1}", nn.Sequential(*layer))
            self.stage_channels[name], self.stage_strides[name] = inplanes, stride_so_far
        self.channels, self.stride = inplanes, stride_so_far
        self.reset_parameters(zero_init_residual)

    def reset_parameters(self, zero_init_residual: bool = True) -> None:
        """Initialise all convolutions and, if ``zero_init_residual``, set the last BN gamma of each block to 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if zero_init_residual and isinstance(module, Block):
                nn.init.zeros_(module.last_norm.weight)

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps of all `STAGES` for images ``x`` (B, 3, H, W); "stem" is after the pooling, if any, "layer4" is C5."""
        x = self.maxpool(self.stem(x) if hasattr(self, "stem") else self.relu(self.bn1(self.conv1(x))))
        maps = {"stem": x}
        for name in STAGES[1:]:
            x = getattr(self, name)(x)
            maps[name] = x
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return C5 (B, channels, H / output_stride, W / output_stride), rounded up, for images ``x`` (B, 3, H, W)."""
        return self.forward_stages(x)["layer4"]

    def keep_inputs_only(self) -> None:
        """Let each residual block keep only its input for the backward pass and compute the rest again."""
        recompute_blocks(self, Block)

    def layer_groups(self) -> list[list[str]]:
        """Return the names of the parameters of the stem, and of each residual block."""
        groups: dict[str, list[str]] = {}
        for name, _ in self.named_parameters():
            parts = name.split(".")
            groups.setdefault(".".join(parts[:2]) if parts[0] in STAGES else "stem", []).append(name)
        return [*groups.values()]


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
        spec.basic,
        spec.groups,
        spec.width_per_group,
    )
