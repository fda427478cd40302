"""Forward parity: check that the framework computes the same with a file as our network does with the backbone.

Shapes: B images of H × W pixels; one map for each stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.backbone_spec import BackboneSpec
from transfer.weights import pyramid_head
from transfer.weights.backbone import Backbone
from transfer.weights.frameworks import FRAMEWORKS, express, find_framework
from transfer.weights.models import framework_models, pyramid_head_model
from transfer.weights.models.load_into import same, unequal
from transfer.weights.models.networks import build_network
from transfer.weights.naming import is_counter
from transfer.weights.read_file import Reading, read
from transfer.weights.vit_spec import VitSpec

SHOWN = 4
"""Number of tensors that an error lists."""
BOUND = 1e-5
"""Largest allowed relative difference."""


@dataclass(frozen=True)
class Difference:
    """Difference between two maps of one stage."""

    max_abs: float
    relative: float
    """``max_abs`` divided by the largest absolute value in the reference."""

    @property
    def ok(self) -> bool:
        """Whether the difference is allowed."""
        return self.relative <= BOUND  # false for NaN


@dataclass(frozen=True)
class Parity:
    """Result of comparing a file, loaded in its framework, with the backbone that it was written from."""

    framework: str | None
    """None if no framework reads the file, so that both backbones were compared in our own network."""
    stages: dict[str, Difference]
    unequal: list[str]
    """Tensors that differ in the framework's model in any bit."""
    silent: list[str]
    """Blocks whose last BN gamma is 0 everywhere, as at the start of training. No map depends on their inner weights, so
    only their tensors were compared."""

    @property
    def title(self) -> str:
        """Return the name of the model in which the file was compared."""
        if self.framework == "mmpretrain":
            return "MMSegmentation's ResNet, for MMPretrain"  # MMPretrain is not installed; see `framework_models.BUILDERS`
        return find_framework(self.framework).title if self.framework else "our own network"

    @property
    def ok(self) -> bool:
        """Whether all tensors are equal and all differences allowed."""
        return not self.unequal and all(difference.ok for difference in self.stages.values())

    @property
    def verdict(self) -> str:
        """Return the sentence that a command prints if everything agrees."""
        return f"verified in {self.title}: every tensor equal, maps within a relative difference of {BOUND:g}"

    def table(self) -> list[str]:
        """Return the lines that a command prints: differences of each stage, and a note if maps could not be compared."""
        rows = [(stage, f"{d.max_abs:.2e}", f"{d.relative:.2e}") for stage, d in self.stages.items()]
        lines = ["", tabulate(rows, headers=("stage", "max abs difference", "relative"), disable_numparse=True), ""]
        if silent := len(self.silent):
            lines.append(f"note     {silent} blocks have a last BN gamma of 0; only their tensors were compared")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a record."""
        return {"bound": BOUND, "ok": self.ok, **asdict(self)}

    def require(self, path: object) -> None:
        """Raise `UserError` with the differences unless everything agrees; ``path`` is named in the message."""
        if self.ok:
            return
        reasons = [
            f"{stage} differs by {d.max_abs:.2g} (relative {d.relative:.2g})"
            for stage, d in self.stages.items()
            if not d.ok
        ]
        if self.unequal:
            more = ", …" if len(self.unequal) > SHOWN else ""  # all of them are in the record
            few = ", ".join(self.unequal[:SHOWN])
            reasons.append(f"{len(self.unequal)} tensors differ from the backbone's ({few}{more})")
        raise UserError(
            f"{path} does not reproduce the backbone in {self.title}: {'; '.join(reasons)}; "
            f"the largest allowed relative difference is {BOUND:g}. Convert the checkpoint again"
        )


_FRAMEWORK_OF = {name: name for name in FRAMEWORKS} | {"timm_c": "timm", "timm_d": "timm", "mmseg_pooled": "mmseg"}
"""Format of a file -> the framework that reads such files."""


def verify(backbone: Backbone, path: str | PathLike[str], framework: str | None = None) -> Parity:
    """Load ``path`` into the framework's model and compare the maps of every stage with those of our own network.

    If the framework has a place for pyramid and head, their outputs are compared as well: P3 to P6 and the output of the
    third convolution of each tower on these, or P2 to P5 and the output of the box head on fixed regions.

    Without ``framework``, the format of the file determines it; if no framework reads that format, the backbone in the file
    runs in our own network. The pixels that the file declares must then be those of ``backbone``, because equal tensors with
    different inputs are not the same backbone.

    Both networks are in eval mode and run at output stride 32, whatever the output stride in pre-training was, because
    strides and dilation are not part of the weights.
    """
    other = None if framework else _same_kind(backbone, Path(path))
    if other is not None:
        framework = _FRAMEWORK_OF.get(other.format)
    backbone = _at_stride_32(backbone)
    backbone = (express(backbone, framework) if framework else backbone).tensors()
    if other is not None and other.backbone.pixels != backbone.pixels:
        raise UserError(
            f"{path} needs input pixels {other.backbone.pixels}, but {backbone.source} needs {backbone.pixels}; "
            "choose the format of the latter with --from, or compare backbones with the same pixels"
        )
    images = probe()
    with torch.no_grad():
        wanted = _own(backbone, images)
        if framework:
            loaded = framework_models.build(framework, backbone, Path(path))
            found = _maps(loaded, images)
            if loaded.pyramid_head is not None:
                wanted, found = wanted | _pyramid_head_maps(backbone, wanted), found | loaded.pyramid_head(images)
            wrong = unequal(loaded.model, backbone, framework)
        else:
            assert other is not None
            found = _own(_at_stride_32(other.backbone), images)
            wrong = [
                n for n, t in backbone.state.items() if not is_counter(n) and not same(other.backbone.state.get(n), t)
            ]
    return Parity(
        framework,
        {stage: compare(found[stage], wanted[stage]) for stage in wanted if stage in found},
        wrong,
        [
            name.removesuffix(".bn3.weight")
            for name, t in backbone.state.items()
            if name.endswith(".bn3.weight") and not t.any()
        ],
    )


def _own(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Return the maps of our own network for ``images`` at every stage."""
    with torch.device("meta"):
        network: Any = build_network(backbone.spec).eval()
    network.load_state_dict(backbone.state, assign=True)
    return network.forward_stages(images)


def _at_stride_32(backbone: Backbone) -> Backbone:
    return (
        replace(backbone, spec=replace(backbone.spec, output_stride=32))
        if isinstance(backbone.spec, BackboneSpec)
        else backbone
    )


def _same_kind(backbone: Backbone, path: Path) -> Reading:
    """Read ``path``; raise `UserError` if its backbone has another spec than ``backbone``."""
    other = read(path)
    mine, theirs = (replace(_at_stride_32(t), state={}, extras={}, source="") for t in (backbone, other.backbone))
    if mine.spec != theirs.spec:
        raise UserError(
            f"{path} holds a {theirs.spec.title}, {backbone.source} a {mine.spec.title}"
            f"{_other_fields(mine.spec, theirs.spec)}; different networks cannot have equal weights; "
            "give two files of the same network"
        )
    return other


def _other_fields(mine: BackboneSpec | VitSpec, theirs: BackboneSpec | VitSpec) -> str:
    """Return the fields in which two specs of the same title differ, for use in a message; empty if the titles differ."""
    if mine.title != theirs.title:
        return ""
    before, now = mine.as_dict(), theirs.as_dict()
    return f" ({', '.join(f'{name} {now[name]} and {before[name]}' for name in now if now[name] != before[name])})"


def probe() -> Tensor:
    """Return two fixed normalised images (2, 3, 64, 96): smooth like photographs, with a little noise, not square."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 3, 5, 7, generator=random)
    smooth = F.interpolate(coarse, size=(64, 96), mode="bicubic", align_corners=True)
    return smooth + 0.2 * torch.randn(2, 3, 64, 96, generator=random)


def compare(found: Tensor, wanted: Tensor) -> Difference:
    """Return the difference of two maps; infinite if shapes differ or if ``wanted`` is 0 everywhere and so shows nothing."""
    scale = wanted.abs().max().item()
    if found.shape != wanted.shape or scale == 0:
        return Difference(float("inf"), float("inf"))
    largest = (found - wanted).abs().max().item()
    return Difference(largest, largest / scale)


def _pyramid_head_maps(backbone: Backbone, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the maps of `framework_models.FrameworkModel.pyramid_head`, computed by our own modules from ``maps``."""
    with torch.device("meta"):
        reference = pyramid_head_model.build(backbone.resnet, backbone.extras).eval()
    reference.load_state_dict(backbone.extras, assign=True)
    levels = reference["fpn"](maps)
    if "box" in reference:
        return levels | {pyramid_head.BOX: reference["box"](pyramid_head_model.regions(backbone.extras))}
    towers = pyramid_head.TOWERS if "head" in reference else ()
    return levels | {f"{level} {tower}": reference["head"](x) for level, x in levels.items() for tower in towers}


def _maps(loaded: framework_models.FrameworkModel, images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of the stages during the framework's own forward pass."""
    maps: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            maps[stage] = output

        return hook

    hooks = [
        loaded.model.get_submodule(name).register_forward_hook(keep(stage)) for stage, name in loaded.stages.items()
    ]
    try:
        loaded.run(images)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
