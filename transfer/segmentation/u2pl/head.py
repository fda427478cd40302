"""U2PL's decoder: DeepLab v3+ with a second branch for representations. Importing this file registers it in MMSegmentation.

Shapes: B pictures; C2 has h × w cells; K classes; D = ``channels``.
"""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads.aspp_head import ASPPModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class RepresentingDeepLabHead(BaseDecodeHead):
    """Atrous pooling of C5 joined with C2, and from both the logits and a representation of each cell.

    Args:
        dilations: those of the three dilated convolutions.
        options: those of BaseDecodeHead; its two inputs are C2 and C5.
    """

    def __init__(self, dilations: tuple[int, ...], **options: Any) -> None:
        super().__init__(input_transform="multiple_select", **options)
        (low, high), width = self.in_channels, self.channels
        norm: Any = {"norm_cfg": self.norm_cfg}
        self.low = ConvModule(low, width, 1, bias=True, **norm)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(high, width, 1, **norm))
        self.atrous = ASPPModule((1, *dilations), high, width, conv_cfg=None, act_cfg={"type": "ReLU"}, **norm)
        joined = ConvModule((len(dilations) + 2) * width, width, 3, padding=1, **norm)
        self.join = nn.Sequential(joined, nn.Dropout2d(self.dropout_ratio))
        self.classify = self._branch()
        self.represent = nn.Sequential(self._branch(), nn.Conv2d(width, width, 1))

    def _branch(self) -> nn.Sequential:
        """Return two convolutions, each with a dropout; that of the classes has the last one in `cls_seg`."""
        width = self.channels
        first, second = (ConvModule(n * width, width, 3, padding=1, bias=True, norm_cfg=self.norm_cfg) for n in (2, 1))
        return nn.Sequential(first, nn.Dropout2d(self.dropout_ratio), second, nn.Dropout2d(self.dropout_ratio))

    def maps(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return logits (B, K, h, w) and representations (B, D, h, w) of the four maps of a backbone."""
        c2, c5 = self._transform_inputs(inputs)
        pooled = resize(self.pool(c5), size=c5.shape[2:], mode="bilinear", align_corners=True)
        deep = self.join(torch.cat([pooled, *self.atrous(c5)], 1))
        deep = resize(deep, size=c2.shape[2:], mode="bilinear", align_corners=True)
        both = torch.cat([self.low(c2), deep], 1)
        return self.conv_seg(self.classify(both)), self.represent(both)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the logits (B, K, h, w)."""
        return self.maps(inputs)[0]
