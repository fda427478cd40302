"""What has to be known to build a ResNet backbone. Kept apart from the network, so that reading a spec needs no PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
TOWER_DEPTH = 3
"""Convolutions of a dense detector's head that are pre-trained (`pretrain.models.fpn`); Detectron2's towers have four."""
GROUPS = 32
"""Of the group norm in FCOS heads."""
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True)
class BackboneSpec:
    """Shape of the ResNet backbone.

    ``output_stride`` changes the maps, never the weights; where strides stand changes the maps, not the shapes.

    Args:
        depth: layers of the ResNet: 50, 101 or 152.
        width: factor of all channels; 1 is the published network, 0.25 the mini scale.
        output_stride: pixels of the image a side of a cell of C5: 32 (as published), 16 or 8; smaller ones dilate.
        stem: "7x7", or "deep": three 3×3 convolutions (MMSegmentation's V1c, timm's d).
        stride_in_1x1: halve the map in the first 1×1 convolution of a stage (MSRA's weights) instead of in its 3×3 one.
        avg_down: average before the convolution of a stage's shortcut instead of striding (timm's d).
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
        """Channels of C5."""
        return int(2048 * self.width)

    @property
    def variant(self) -> str:
        """Which modules there are, whatever their number and width: "7x7", "deep" or "deep, averaging"."""
        return self.stem + (", averaging" if self.avg_down else "")

    @property
    def title(self) -> str:
        marks = ", deep stem" * (self.stem == "deep") + ", averaging shortcuts" * self.avg_down
        return f"ResNet-{self.depth} of width {self.width:g}{marks}" + ", stride in the 1×1" * self.stride_in_1x1

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
