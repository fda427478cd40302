"""Backbones by name in MMSegmentation and MMDetection.

Shapes: B images of H × W pixels, C channels.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from pretrain.models.named_network import NamedNetwork
from pretrain.models.named_sizes import needed_multiple
from pretrain.models.named_spec import NamedSpec
from transfer.segmentation.named_config import outputs


@MODELS.register_module()
class NamedBackbone(NamedNetwork, BaseModule):
    """A `NamedNetwork` that returns the maps of four stages, as the heads of OpenMMLab take them.

    A network that takes whole patches only gets images with zeros added, right and below as in MMSegmentation's ViT; on all
    sides alike if it is frozen, as in the evaluation of DINOv2.

    Args:
        name, options, output_stride: as in `NamedSpec`.
        frozen: whether it has no gradients and stays in evaluation mode.
        init_cfg: weights to start from, as in every backbone of OpenMMLab: dict(type="Pretrained", checkpoint=..., prefix=...).
    """

    def __init__(
        self,
        name: str,
        options: dict[str, Any] | None = None,
        output_stride: int = 0,
        frozen: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        spec = NamedSpec(name, dict(options or {}), output_stride)
        super().__init__(spec)
        self.outputs = [*outputs(spec)]
        self.learn_for(self.outputs)
        self.frozen, self.init_cfg = frozen, init_cfg
        self.multiple = needed_multiple(spec) or 1
        if frozen:
            self.requires_grad_(False)

    def init_weights(self) -> None:
        """Load the weights of ``init_cfg``, if it is given; the network has initialised itself when it was built."""
        if self.init_cfg:
            super().init_weights()

    def train(self, mode: bool = True) -> NamedBackbone:
        """Set the mode, unless the backbone is frozen."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Return the maps (B, C, h, w) of four stages for images ``x`` (B, 3, H, W)."""
        missing = [-side % self.multiple for side in x.shape[:1:-1]]  # of the width, then of the height
        if any(missing):
            before = [pixels // 2 if self.frozen else 0 for pixels in missing]
            x = F.pad(x, [n for b, m in zip(before, missing, strict=True) for n in (b, m - b)])
        maps = self.forward_stages(x)
        return tuple(maps[stage] for stage in self.outputs)
