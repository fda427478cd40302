"""The linear heads of DINOv2 and DINOv3: batch norm and a 1×1 convolution on the map of a backbone.

Importing this file imports MMSegmentation and registers the head. Shapes: B images; a map has h × w cells of C channels; K
classes.
"""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Batch norm, dropout and a 1×1 convolution (weights from N(0, 0.01), bias 0), in one of two orders.

    DINOv3 drops channels before the batch norm, so that they count in its statistics as zeros. The head of DINOv2 follows
    MMSegmentation, which drops them before the convolution, but its published configs drop none.

    Args:
        dropout_first: whether the dropout comes before the batch norm.
        options: those of BaseDecodeHead; ``channels`` must be the number of input channels.
    """

    def __init__(self, dropout_first: bool, **options: Any) -> None:
        super().__init__(**options)
        if self.channels != self.in_channels:
            raise ValueError(
                f"channels is {self.channels}, but the map has {self.in_channels}; a linear head keeps them"
            )
        self.norm = build_norm_layer(self.norm_cfg, self.channels)[1]
        self.dropout_first = dropout_first

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the logits (B, K, h, w) of the chosen map among ``inputs``, each (B, C, h, w)."""
        cells = self._transform_inputs(inputs)
        if self.dropout_first:
            if self.dropout is not None:
                cells = self.dropout(cells)
            return self.conv_seg(self.norm(cells))
        return self.cls_seg(self.norm(cells))
