"""Feature pyramid and the first convolutions of a dense detector's head, laid out as Detectron2's.

Shapes: B batch, F channels of the pyramid; level l has cells 2^l pixels apart: P3..P6 are 28, 14, 7 and 4 cells a side
at 224 pixels (with a backbone of output stride 32; otherwise as large as the backbone's own maps, the weights are the same).
Sources: `FPN` and `LastLevelP6P7` in detectron2/modeling/backbone/fpn.py, `RetinaNetHead` in
detectron2/modeling/meta_arch/retinanet.py; own code, the same computation and initialisation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.backbone_spec import GROUPS, TOWER_DEPTH

LEVELS = ("p3", "p4", "p5", "p6")


class FPN(nn.Module):
    """Laterals 1×1 on C3..C5, top-down sums by nearest neighbours, outputs 3×3; P6 = 3×3 with stride 2 on P5.

    P6 comes from P5, as in FCOS, the detector of the paper; RetinaNet's usual P6 comes from C5 instead. P7 is left out.

    Args:
        channels: of C5; C4 and C3 have half and a quarter.
        out: F.
        first: lowest level; from P2 on, as two-stage detectors have it, P6 is a pooling that they do themselves.
        conv: another kind of convolution, for pyramids that others have trained (`transfer.weights`).
    """

    def __init__(self, channels: int, out: int = 256, first: int = 3, conv: Any = nn.Conv2d) -> None:
        super().__init__()
        self.stages = range(first, 6)
        for stage in self.stages:
            self.add_module(f"lateral{stage}", conv(channels // 2 ** (5 - stage), out, 1))
            self.add_module(f"output{stage}", conv(out, out, 3, padding=1))
        self.p6 = conv(out, out, 3, 2, 1) if first == 3 else None
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_uniform_(parameter, a=1)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps "layer2", "layer3", "layer4" of a backbone (C3..C5, (B, C, H, W) each) -> (B, F, H, W) of each level."""
        levels: dict[str, Tensor] = {}
        above: Tensor | None = None
        for stage in reversed(self.stages):
            x = self.get_submodule(f"lateral{stage}")(maps[f"layer{stage - 1}"])
            if above is not None:
                x = x + F.interpolate(above, size=x.shape[2:], mode="nearest")
            above = x
            levels[f"p{stage}"] = self.get_submodule(f"output{stage}")(x)
        levels = dict(sorted(levels.items()))
        return levels | {"p6": self.p6(levels["p5"])} if self.p6 else levels


class Tower(nn.Sequential):
    """The first three of a head's 3×3 convolutions, each with its norm, if any, and ReLU; the same for every level.

    (B, F, H, W) -> (B, F, H, W).

    Args:
        channels: F.
        norm: group norm after each convolution, as in FCOS heads; RetinaNet's have none. UserError unless 32 divides F.
    """

    def __init__(self, channels: int, norm: bool) -> None:
        if norm and channels % GROUPS:
            raise UserError(
                f"method.channels {channels} is not a multiple of {GROUPS}, the groups of an FCOS head's norm"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for index in range(1, TOWER_DEPTH + 1):
            layers[f"conv{index}"] = conv = nn.Conv2d(channels, channels, 3, padding=1)
            nn.init.normal_(conv.weight, std=0.01)
            conv.bias = nn.Parameter(torch.zeros(channels))
            if norm:
                layers[f"norm{index}"] = nn.GroupNorm(GROUPS, channels)
            layers[f"relu{index}"] = nn.ReLU(inplace=True)
        super().__init__(layers)
