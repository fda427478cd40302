"""Our own modules for pyramid and head, the reference with which the frameworks' modules are compared.

There are two types. Dense: `pretrain/models/fpn.py`. Two-stage, as SoCo trains it and `coco_fpn_1x` uses it: P2 to P5 and the
box head 4conv1fc, batch norm after each convolution (hologerry/SoCo, contrast/models/fpn.py and fast_rcnn_conv_fc_head.py).

Shapes: B batch, F channels of the pyramid, R regions of 7 × 7 cells.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pretrain.models.backbone_spec import GROUPS, BackboneSpec
from pretrain.models.families import stage_channels
from pretrain.models.fpn import FPN, Tower
from pretrain.models.named_spec import NamedSpec
from transfer.weights.pyramid_head import BOX_DEPTH, CELLS, length, two_stage, width


class ConvNorm(nn.Conv2d):
    """A convolution without bias and the batch norm after it, which is called ``norm`` as in Detectron2."""

    def __init__(self, inner: int, out: int, kernel: int, padding: int = 0) -> None:
        super().__init__(inner, out, kernel, padding=padding, bias=False)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution and norm."""
        return self.norm(super().forward(x))


class BoxHead(nn.Sequential):
    """Box head 4conv1fc: (R, F, 7, 7) -> (R, ``out``)."""

    def __init__(self, width: int, out: int) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(1, BOX_DEPTH + 1):
            layers |= {f"conv{i}": ConvNorm(width, width, 3, padding=1), f"relu{i}": nn.ReLU()}
        layers |= {"flatten": nn.Flatten(), "fc1": nn.Linear(width * CELLS**2, out), "fc_relu1": nn.ReLU()}
        super().__init__(layers)


def build(spec: BackboneSpec | NamedSpec, extras: Mapping[str, Tensor]) -> nn.ModuleDict:
    """Return the modules "fpn" and, as in ``extras``, "head", "box" or neither, with the width of ``extras``."""
    wide = width(extras)
    if two_stage(extras):
        head = BoxHead(wide, length(extras, "box.fc1.bias"))
        return nn.ModuleDict({"fpn": FPN(stage_channels(spec), wide, 2, ConvNorm), "box": head})
    modules: dict[str, nn.Module] = {"fpn": FPN(stage_channels(spec), wide)}
    if any(name.startswith("head.") for name in extras):
        modules["head"] = Tower(wide, "head.norm1.weight" in extras and wide % GROUPS == 0)
    return nn.ModuleDict(modules)


def regions(extras: Mapping[str, Tensor]) -> Tensor:
    """Return fixed regions (4, F, 7, 7) on which box heads are compared."""
    return torch.randn(4, width(extras), CELLS, CELLS, generator=torch.Generator().manual_seed(1))
