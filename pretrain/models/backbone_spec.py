"""Description of a ResNet backbone. It is separate from the network, so that reading a spec does not need PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Number of blocks in layer1 to layer4, by depth."""
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
    of the weights.

    Args:
        depth: number of layers of the ResNet: 50, 101 or 152.
        width: factor on all channel numbers: 1 for the published network, 0.25 at mini scale.
        output_stride: side of a cell of C5 in image pixels: 32 (as published), or 16 or 8 by dilated convolutions.
        stem: "7x7" (one convolution) or "deep" (three 3×3 convolutions, as MMSegmentation's V1c and timm's d).
        stride_in_1x1: whether a stage strides in its first 1×1 convolution (MSRA's weights) instead of in its 3×3 one.
        avg_down: whether the shortcut of a stage averages before its convolution instead of striding (timm's d).
    """

    depth: int = 50
    width: float = 1.0
    output_stride: int = 32
    stem: Literal["7x7", "deep"] = "7x7"
    stride_in_1x1: bool = False
    avg_down: bool = False

    def __post_init__(self) -> None:
        if self.depth not in BLOCKS:
            raise ValueError(f"backbone depth {self.depth} is not known; choose one of {sorted(BLOCKS)}")
        if self.output_stride not in (8, 16, 32):
            raise ValueError(f"backbone output_stride {self.output_stride} is not possible; choose 8, 16 or 32")
        if self.width <= 0 or (64 * self.width) % 1:
            raise ValueError(f"backbone width {self.width} must be positive and make 64 × width a whole number")
        if self.stem not in ("7x7", "deep") or (self.stem == "deep" and (32 * self.width) % 1):
            raise ValueError(f"backbone stem {self.stem!r} of width {self.width} is not possible; choose 7x7 or deep")

    @property
    def channels(self) -> int:
        """Number of channels of C5."""
        return int(2048 * self.width)

    @property
    def variant(self) -> str:
        """Which modules the backbone has, without number and width: "7x7", "deep" or "deep, averaging"."""
        return self.stem + (", averaging" if self.avg_down else "")

    @property
    def title(self) -> str:
        """Depth, width and variant in one phrase."""
        marks = ", deep stem" * (self.stem == "deep") + ", averaging shortcuts" * self.avg_down
        return f"ResNet-{self.depth} of width {self.width:g}{marks}" + ", stride in the 1×1" * self.stride_in_1x1

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)
