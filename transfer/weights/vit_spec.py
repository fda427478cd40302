"""Which plain ViT backbones there are, as iBOT, DINO and MAE train them and ViTDet takes them over. Needs no PyTorch.

Naming are timm's, without class token and last norm, which ViTDet has not. The position of the class token stays in front
of ``pos_embed``, since Detectron2's ViT expects it there and skips it (`pretrain_use_cls_token`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pixbench.errors import UserError


@dataclass(frozen=True)
class VitSpec:
    """What has to be known to build one; base size of `An Image is Worth 16×16 Words` by default."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    image: int = 224
    """Side in pixels that ``pos_embed`` was learnt at."""

    variant = "ViT"

    @property
    def title(self) -> str:
        return f"ViT of width {self.width}, depth {self.depth}, patches of {self.patch}"

    @property
    def stages(self) -> dict[str, str]:
        """What parity compares: name shown -> module, the patches and four blocks spread over the depth."""
        blocks = sorted({max(0, round(self.depth * i / 4) - 1) for i in (1, 2, 3, 4)})
        return {"patch_embed": "patch_embed"} | {f"block {i + 1}": f"blocks.{i}" for i in blocks}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_vit(shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Any]:
    """Fields of the `VitSpec` that weights of these names and shapes tell.

    Heads are no part of any shape: 64 channels each, as in all published ones but the huge one, which has 80.
    """
    patches, positions = shapes["patch_embed.proj.weight"], shapes.get("pos_embed", ())
    blocks = {int(match[1]) for name in shapes if (match := re.match(r"blocks\.(\d{1,4})\.", name))}
    side = round(max(positions[1] - 1, 0) ** 0.5) if len(positions) == 3 else 0
    if len(patches) != 4 or not all(patches) or not blocks or not side or positions[1] != side**2 + 1:
        raise UserError(
            f"{source} holds no plain ViT with learnt positions of a square image and a class token; others cannot be "
            "converted"
        )
    width, patch = patches[0], patches[-1]
    heads = max(1, width // (80 if width == 1280 else 64))
    return {"width": width, "depth": len(blocks), "heads": heads, "patch": patch, "image": side * patch}
