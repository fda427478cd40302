"""Forward parity: does the framework, given the file, compute what the trunk computed?

Shapes: B images of H × W pixels; one map a stage of `STAGES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.errors import UserError
from pretrain.models.resnet import STAGES
from transfer.weights import neck, targets
from transfer.weights.layouts import find_layout
from transfer.weights.live import unequal
from transfer.weights.trunk import Trunk, neck_skeleton, skeleton

BOUND = 1e-4
"""Largest difference allowed, both absolute and relative."""


@dataclass(frozen=True)
class Difference:
    """Between two maps of one stage."""

    max_abs: float
    relative: float
    """``max_abs`` over the largest magnitude in the reference."""

    @property
    def ok(self) -> bool:
        return self.max_abs <= BOUND and self.relative <= BOUND  # false for NaN


@dataclass(frozen=True)
class Parity:
    """What was found on comparing a file, inside its framework, with the trunk it was made from."""

    layout: str
    stages: dict[str, Difference]
    unequal: list[str]
    """Tensors that the framework's model does not hold bit for bit."""
    silent: list[str]
    """Blocks whose last BN gamma is 0 throughout, as at the start of training: no map depends on their inner weights,
    so for these only the tensors were compared."""

    @property
    def ok(self) -> bool:
        return not self.unequal and all(difference.ok for difference in self.stages.values())

    def as_dict(self) -> dict[str, Any]:
        return {"bound": BOUND, "ok": self.ok, **asdict(self)}

    def require(self, path: object) -> None:
        """Raise `UserError` unless everything agrees."""
        if self.ok:
            return
        reasons = [
            f"{stage} differs by {d.max_abs:.2g} (relative {d.relative:.2g})"
            for stage, d in self.stages.items()
            if not d.ok
        ]
        if self.unequal:
            reasons.append(f"{len(self.unequal)} tensors are not the trunk's ({', '.join(self.unequal)})")
        raise UserError(
            f"{path} does not reproduce the trunk in {find_layout(self.layout).title}: {'; '.join(reasons)}; "
            f"allowed is {BOUND:g}. Convert the checkpoint again"
        )


def verify(trunk: Trunk, path: str | PathLike[str], layout: str) -> Parity:
    """Load ``path`` into the framework's real model and compare the maps of every stage with the trunk's own.

    Where the layout has a place for pyramid and head, so are P3..P6 and what the head's third convolution makes of them.

    Both are in eval mode and run at output stride 32 whatever the trunk was trained at: strides and dilation are no
    part of the weights.
    """
    spec = replace(trunk.spec, output_stride=32)
    reference = skeleton(spec).eval()
    reference.load_state_dict(trunk.state, assign=True)
    target = targets.build(layout, replace(trunk, spec=spec), Path(path))
    images = probe()
    with torch.no_grad():
        wanted = reference.forward_stages(images)
        found = _maps(target, find_layout(layout).names.stages, images)
        stages = list(STAGES)
        if target.neck is not None:
            more = _neck_maps(trunk, wanted)
            wanted, found, stages = wanted | more, found | target.neck(images), stages + list(more)
    return Parity(
        layout,
        {stage: compare(found[stage], wanted[stage]) for stage in stages},
        unequal(target.model, trunk, layout),
        [
            name.removesuffix(".bn3.weight")
            for name, t in trunk.state.items()
            if name.endswith(".bn3.weight") and not t.any()
        ],
    )


def probe() -> Tensor:
    """Two normalised images (2, 3, 64, 96), always the same: smooth as photographs are, with fine grain, not square."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 3, 5, 7, generator=random)
    smooth = F.interpolate(coarse, size=(64, 96), mode="bicubic", align_corners=True)
    return smooth + 0.2 * torch.randn(2, 3, 64, 96, generator=random)


def compare(found: Tensor, wanted: Tensor) -> Difference:
    """Infinite where the shapes differ or where the reference is 0 throughout and so proves nothing."""
    scale = wanted.abs().max().item()
    if found.shape != wanted.shape or scale == 0:
        return Difference(float("inf"), float("inf"))
    largest = (found - wanted).abs().max().item()
    return Difference(largest, largest / scale)


def _neck_maps(trunk: Trunk, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """P3..P6 on the trunk's own ``maps`` and, named as Detectron2's towers, what the head makes of them."""
    reference = neck_skeleton(trunk.spec, trunk.extras)
    reference.load_state_dict(trunk.extras, assign=True)
    levels = reference["fpn"](maps)
    towers = neck.TOWERS if "head" in reference else ()
    return levels | {f"{level} {tower}": reference["head"](x) for level, x in levels.items() for tower in towers}


def _maps(target: targets.Target, stages: dict[str, str], images: Tensor) -> dict[str, Tensor]:
    """Outputs of the stem and the stages while the framework runs its own forward."""
    maps: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            maps[stage] = output

        return hook

    modules = {"stem": target.stem, **stages}
    hooks = [target.model.get_submodule(name).register_forward_hook(keep(stage)) for stage, name in modules.items()]
    try:
        target.run(images)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
