"""Description of a ResNet backbone. It is separate from the network, so that reading a spec does not need PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

BASIC_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Number of basic blocks in layer1 to layer4, by depth."""
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), **BASIC_BLOCKS}
"""Number of blocks of either kind in layer1 to layer4, by depth."""
TOWER_DEPTH = 3
"""Number of head convolutions that are pre-trained (`pretrain.models.fpn`); Detectron2's towers have four."""
GROUPS = 32
"""Number of groups of the group norm in FCOS heads."""
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
"""Stages of a backbone, from input to output."""


@dataclass(frozen=True)
class BackboneSpec:
    """Shape of the ResNet backbone.

    ``output_stride`` changes the size of the maps, never the weights. ``stride_in_1x1`` changes the outputs, never the shapes
    of the weights. ``groups`` and ``width_per_group`` have torchvision's meaning: the 3×3 convolution of a bottleneck in
    layer1 has width × width_per_group × groups channels.

    Args:
        depth: number of layers of the ResNet: 18 or 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        width: factor on all channel numbers: 1 for the published network, 0.25 at mini scale.
        output_stride: side of a cell of C5 in image pixels: 32 (as published), or 16 or 8 by dilated convolutions; with the
            3×3 stem 8, or 4 or 2.
        stem: "7x7" (one convolution), "deep" (three 3×3 convolutions, as MMSegmentation's V1c and timm's d) or "3x3" (one
            convolution without stride and no pooling, for the small images of CIFAR).
        stride_in_1x1: whether a stage strides in its first 1×1 convolution (MSRA's weights) instead of in its 3×3 one.
        avg_down: whether the shortcut of a stage averages before its convolution instead of striding (timm's d).
        groups: number of groups of the 3×3 convolution in bottlenecks: 32 for ResNeXt-50 32x4d.
        width_per_group: number of channels of each group in layer1 at width 1: 4 for ResNeXt-50 32x4d, 128 for
            Wide ResNet-50-2.
    """

    depth: int = 50
    width: float = 1.0
    output_stride: int = 32
    stem: Literal["7x7", "deep", "3x3"] = "7x7"
    stride_in_1x1: bool = False
    avg_down: bool = False
    groups: int = 1
    width_per_group: int = 64

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise ValueError(f"backbone depth {self.depth} is not known; choose one of {sorted(BLOCKS)}")
        if self.width <= 0 or (64 * self.width) % 1:
            raise ValueError(f"backbone width {self.width} must be positive and make 64 × width a whole number")
        if self.stem not in ("7x7", "deep", "3x3") or (self.stem == "deep" and (32 * self.width) % 1):
            raise ValueError(
                f"backbone stem {self.stem!r} of width {self.width} is not possible; choose 7x7, deep or 3x3"
            )
        whole = self.natural_stride
        if self.output_stride not in (whole, whole // 2, whole // 4):
            raise ValueError(
                f"backbone output_stride {self.output_stride} is not possible with the {self.stem} stem; choose {whole}, or "
                f"{whole // 2} or {whole // 4} by dilation"
            )
        grouping = f"backbone groups {self.groups} and width_per_group {self.width_per_group}"
        if self.basic and (self.groups, self.width_per_group) != (1, 64):
            raise ValueError(
                f"{grouping} are for bottlenecks, but a ResNet-{self.depth} has basic blocks; leave them out"
            )
        if self.basic and self.stride_in_1x1:
            raise ValueError(
                f"backbone stride_in_1x1 is for bottlenecks, but a ResNet-{self.depth} has basic blocks; leave it out"
            )
        if min(self.groups, self.width_per_group) < 1 or self.groups % 1 or self.width_per_group % 1:
            raise ValueError(f"{grouping} are not possible; choose whole numbers from 1")
        if (self.width * self.width_per_group) % 1:
            raise ValueError(
                f"{grouping} are not possible at width {self.width}, because width × width_per_group, the number of channels "
                "of a group, must be a whole number"
            )

    @property
    def basic(self) -> bool:
        """Whether its blocks are basic (two 3×3 convolutions) instead of bottlenecks."""
        return self.depth in BASIC_BLOCKS

    @property
    def channels(self) -> int:
        """Number of channels of C5; C4 has half of them, C3 a quarter, C2 an eighth."""
        return int((512 if self.basic else 2048) * self.width)

    @property
    def stage_channels(self) -> dict[str, int]:
        """Number of channels of the maps of layer1 to layer4 (C2 to C5)."""
        return {stage: self.channels // 2 ** (4 - number) for number, stage in enumerate(STAGES) if number}

    @property
    def group_channels(self) -> int:
        """Number of channels of each group of the 3×3 convolutions in layer1; every further stage doubles it."""
        return int(self.width * self.width_per_group)

    @property
    def natural_stride(self) -> int:
        """Output stride without dilation."""
        return 8 if self.stem == "3x3" else 32

    @property
    def variant(self) -> str:
        """Which modules the backbone has, without number and width: "7x7", "deep", "3x3" or "deep, averaging"."""
        return self.stem + (", averaging" if self.avg_down else "")

    @property
    def title(self) -> str:
        """Name, width and variant in one phrase."""
        name = f"ResNet-{self.depth}"
        if self.groups > 1:
            name = f"ResNeXt-{self.depth} {self.groups}x{self.width_per_group}d"
        elif self.width_per_group != 64:
            name = f"Wide ResNet-{self.depth}-{self.width_per_group / 64:g}"
        marks = {"7x7": "", "deep": ", deep stem", "3x3": ", 3×3 stem (CIFAR)"}[self.stem]
        marks += ", averaging shortcuts" * self.avg_down + ", stride in the 1×1" * self.stride_in_1x1
        return f"{name} of width {self.width:g}{marks}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name.

        Groups are left out where there are none. So the description of any other ResNet, which is part of weight files and
        identifies runs, is the same as before there were groups.
        """
        fields = asdict(self)
        for name, usual in (("groups", 1), ("width_per_group", 64)):
            if fields[name] == usual:
                del fields[name]
        return fields


def width_per_group(channels: int, base: int) -> int:
    """Return the ``width_per_group`` of a ResNet with ``channels`` in each group in layer1 and ``base`` in the stem.

    Raises:
        ValueError: It is not a whole number.
    """
    if base < 1 or 64 * channels % base:
        raise ValueError(
            f"groups of {channels} channels do not fit a stem of {base}; 64 × {channels} / {base} must be whole"
        )
    return 64 * channels // base
