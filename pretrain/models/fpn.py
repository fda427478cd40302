"""Feature pyramid and the first convolutions of a dense detector's head, built as in Detectron2.

Shapes: B batch, F channels of the pyramid. Cells of level l are 2^l pixels apart: P3..P6 are 28, 14, 7 and 4 cells a
side at 224 pixels. With a backbone output stride below 32 the levels are as large as the backbone's maps; the weights
are the same.
Sources: `FPN` and `LastLevelP6P7` in detectron2/modeling/backbone/fpn.py, `RetinaNetHead` in
detectron2/modeling/meta_arch/retinanet.py; own code with the same computation and initialisation.
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
    """Feature pyramid: 1×1 laterals on C3..C5, top-down sums with nearest neighbours, 3×3 outputs.

    P6 is a 3×3 convolution with stride 2 on P5, as in FCOS, the detector of the paper. RetinaNet usually makes P6 from
    C5. P7 is left out.

    Args:
        channels: channels of the backbone's maps by stage, "layer1" to "layer4" (C2 to C5), as far as the pyramid takes them.
        out: F.
        first: lowest level. A pyramid from P2 (two-stage detectors) has no P6 here: the detector makes it by pooling.
        conv: class of the convolutions, for pyramids trained elsewhere (`transfer.weights`).
    """

    def __init__(self, channels: Mapping[str, int], out: int = 256, first: int = 3, conv: Any = nn.Conv2d) -> None:
        super().__init__()
        self.stages = range(first, 6)
        for stage in self.stages:
            self.add_module(f"lateral{stage}", conv(channels[f"layer{stage - 1}"], out, 1))
            self.add_module(f"output{stage}", conv(out, out, 3, padding=1))
        self.p6 = conv(out, out, 3, 2, 1) if first == 3 else None
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_uniform_(parameter, a=1)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each level (B, F, H, W) from a backbone's maps "layer2" to "layer4" (C3..C5, (B, C, H, W) each)."""
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
    """First three 3×3 convolutions of a head, each with an optional norm and a ReLU; shared by all levels.

    (B, F, H, W) -> (B, F, H, W).

    Args:
        channels: F.
        norm: whether a group norm follows each convolution, as in FCOS heads; RetinaNet's heads have no norm.

    Raises:
        UserError: ``norm`` is True and F is not a multiple of 32.
    """

    def __init__(self, channels: int, norm: bool) -> None:
        if norm and channels % GROUPS:
            raise UserError(
                f"method.channels {channels} is not a multiple of {GROUPS}, the groups of the norm in an FCOS head; "
                "choose another number"
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
