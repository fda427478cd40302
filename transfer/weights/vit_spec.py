"""Specification of the plain ViT backbones that iBOT, DINO and MAE train and that ViTDet uses. Needs no PyTorch.

Names are those of timm. There is no class token and no last norm, because ViTDet has neither. The position of the class
token stays the first of ``pos_embed``, because Detectron2's ViT expects it there and skips it (`pretrain_use_cls_token`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pixbench.errors import UserError


@dataclass(frozen=True)
class VitSpec:
    """Describe a plain ViT; the defaults are ViT-B/16 of `An Image is Worth 16×16 Words`."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    image: int = 224
    """Side in pixels of the square images for which ``pos_embed`` was learnt."""

    variant = "ViT"

    @property
    def title(self) -> str:
        """Return a short description for messages."""
        return f"ViT of width {self.width}, depth {self.depth}, patches of {self.patch}"

    @property
    def stages(self) -> dict[str, str]:
        """Return the modules that parity compares: the patches and four blocks over the depth, as shown name -> module."""
        blocks = sorted({max(0, round(self.depth * i / 4) - 1) for i in (1, 2, 3, 4)})
        return {"patch_embed": "patch_embed"} | {f"block {i + 1}": f"blocks.{i}" for i in blocks}

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def measure_vit(shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Any]:
    """Return the fields of the `VitSpec` that follow from names and shapes of the weights.

    The number of heads does not follow from any shape. Each head is taken to have 64 channels, as in ViT, DeiT, DINO, iBOT
    and MAE; in the huge model it has 80. In MoCo v3's ViT-S it has 32, which its format says (`Format.backbone`).
    """
    patches, positions = shapes["patch_embed.proj.weight"], shapes.get("pos_embed", ())
    blocks = {int(match[1]) for name in shapes if (match := re.match(r"blocks\.(\d{1,4})\.", name))}
    side = round(max(positions[1] - 1, 0) ** 0.5) if len(positions) == 3 else 0
    if len(patches) != 4 or not all(patches) or not blocks or not side or positions[1] != side**2 + 1:
        raise UserError(
            f"{source} holds no plain ViT with learnt positions of a square image and a class token; other ViTs cannot be "
            "converted"
        )
    width, patch = patches[0], patches[-1]
    heads = max(1, width // (80 if width == 1280 else 64))
    return {"width": width, "depth": len(blocks), "heads": heads, "patch": patch, "image": side * patch}
