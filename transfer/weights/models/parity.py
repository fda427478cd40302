"""Forward parity: check that the framework computes the same with a file as our network does with the backbone.

What our network is must not rest on our reading of the file alone. Where the library is installed that the file's own
network comes from (torchvision, timm, transformers), that network computes the maps as well.

Shapes: B images of H × W pixels; one map for each stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch import Tensor, nn

from pixbench.errors import UserError, an
from pretrain.models.backbone_spec import BackboneSpec
from pretrain.models.named_look import usual_size
from pretrain.models.named_spec import NamedSpec
from transfer.weights import pyramid_head
from transfer.weights.backbone import Backbone
from transfer.weights.frameworks import FRAMEWORKS, FrameworkModel, express, find_framework
from transfer.weights.larger_patches import RESIZING, resized
from transfer.weights.models import pyramid_head_model
from transfer.weights.models.framework_models import loaded
from transfer.weights.models.load_into import same, unequal
from transfer.weights.models.networks import build_network
from transfer.weights.models.source_network import SourceNetwork, network_of
from transfer.weights.naming import is_counter
from transfer.weights.read_file import Reading, read
from transfer.weights.spec import Spec

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
    source: dict[str, Difference] = field(default_factory=dict)
    """Differences between our network and the network that the source was made for, where its library is installed."""
    source_network: str | None = None
    """That network, in words; None if there was none to compare with."""
    changes: tuple[str, ...] = ()
    """What the file says was changed when it was written, one sentence each; the backbone was changed alike to compare."""

    @property
    def title(self) -> str:
        """Return the name of the model in which the file was compared."""
        rules = find_framework(self.framework) if self.framework else None
        return (rules.proved_in or rules.title) if rules else "our own network"

    @property
    def ok(self) -> bool:
        """Whether all tensors are equal and all differences allowed."""
        differences = [*self.stages.values(), *self.source.values()]
        return not self.unequal and all(difference.ok for difference in differences)

    @property
    def verdict(self) -> str:
        """Return the sentence that a command prints if everything agrees."""
        return f"verified in {self.title}: every tensor equal, maps within a relative difference of {BOUND:g}"

    def table(self) -> list[str]:
        """Return the lines that a command prints: differences of each stage, and a note if maps could not be compared."""
        rows = [(stage, f"{d.max_abs:.2e}", f"{d.relative:.2e}") for stage, d in self.stages.items()]
        lines = ["", tabulate(rows, headers=("stage", "max abs difference", "relative"), disable_numparse=True), ""]
        lines += [f"changed  {line}" for line in self.changes]
        if self.source_network:
            largest = max((d.relative for d in self.source.values()), default=None)
            said = "does not take these weights" if largest is None else f"computes the same maps within {largest:.2e}"
            lines.append(f"checked  {self.source_network} {said}")
        if silent := len(self.silent):
            lines.append(f"note     {silent} blocks have a last BN gamma of 0; only their tensors were compared")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for a record."""
        return {"bound": BOUND, "ok": self.ok, **asdict(self)}

    def require(self, path: object, advice: str = "Convert the checkpoint again") -> None:
        """Raise `UserError` with the differences and ``advice`` unless everything agrees; ``path`` is named in the message."""
        if self.ok:
            return
        if self.source_network and not all(d.ok for d in self.source.values()):
            raise UserError(
                f"the source is not the network that its weights show: {self.source_network} computes other maps with them "
                f"({', '.join(stage for stage, d in self.source.items() if not d.ok)} differ); it cannot be converted"
            )
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
            f"the largest allowed relative difference is {BOUND:g}. {advice}"
        )


def verify(backbone: Backbone, path: str | PathLike[str], framework: str | None = None) -> Parity:
    """Load ``path`` into the framework's model and compare the maps of every stage with those of our own network.

    If the framework has a place for pyramid and head, their outputs are compared as well: P3 to P6 and the output of the
    third convolution of each tower on these, or P2 to P5 and the output of the box head on fixed regions.

    Without ``framework``, the format of the file determines it; if no framework reads that format, the backbone in the file
    runs in our own network. The pixels that the file declares must then be those of ``backbone``, because equal tensors with
    different inputs are not the same backbone.

    Both networks are in eval mode and run without dilation, whatever the output stride in pre-training was, because strides
    and dilation are not part of the weights.
    """
    if framework is not None:
        return prove_written(express(backbone, framework), Path(path), framework)
    return prove_same(backbone, path)


def prove_written(backbone: Backbone, path: Path, framework: str, source: Reading | None = None) -> Parity:
    """Compare as `verify` does, for a backbone in the form of the framework; ``source`` is compared with its own network."""
    backbone = _undilated(backbone)
    images = probe(backbone.spec)
    with torch.no_grad():
        wanted = _own(backbone, images)
        model = loaded(framework, backbone, path)
        found = _maps(model, images)
        if model.pyramid_head is not None:
            wanted, found = wanted | _pyramid_head_maps(backbone, wanted), found | model.pyramid_head(images)
        parity = _parity(framework, backbone, wanted, found, unequal(model.model, backbone, framework))
        if source is not None and (network := network_of(source)) is not None:
            parity = replace(parity, **_with_source(source, network, images))
    return parity


def _with_source(source: Reading, network: SourceNetwork, images: Tensor) -> dict[str, Any]:
    if network.model is None:
        return {"source_network": network.title}
    ours, theirs = _own(_undilated(source.backbone), images), _maps(network.model, images)
    return {
        "source": {stage: compare(theirs[stage], ours[stage]) for stage in ours if stage in theirs},
        "source_network": network.title,
    }


def prove_same(backbone: Backbone, path: str | PathLike[str]) -> Parity:
    """Compare with the backbone in ``path``, in the framework that reads its format or else in our own network."""
    other = read(path)
    framework = next((name for name, rules in FRAMEWORKS.items() if other.format in rules.reads), None)
    changed = other.backbone.resized and not backbone.resized
    backbone = resized(backbone) if changed else backbone
    _check_same_kind(backbone, other.backbone, path)
    expressed = express(backbone, framework) if framework else backbone
    if other.backbone.pixels != expressed.pixels:
        raise UserError(
            f"{path} needs input pixels {other.backbone.pixels}, but {backbone.source} needs {backbone.pixels}; "
            "choose the format of the latter with --from, or compare backbones with the same pixels"
        )
    changes = (RESIZING,) if changed else ()
    if framework:
        return replace(prove_written(expressed, Path(path), framework), changes=changes)
    backbone = _undilated(backbone)
    images = probe(backbone.spec)
    with torch.no_grad():
        wanted, found = _own(backbone, images), _own(_undilated(other.backbone), images)
    held = other.backbone.state
    wrong = [name for name, t in backbone.state.items() if not is_counter(name) and not same(held.get(name), t)]
    return replace(_parity(None, backbone, wanted, found, wrong), changes=changes)


def _parity(
    framework: str | None, backbone: Backbone, wanted: dict[str, Tensor], found: dict[str, Tensor], wrong: list[str]
) -> Parity:
    last = ".bn2.weight" if getattr(backbone.spec, "basic", False) else ".bn3.weight"
    silent = [name.removesuffix(last) for name, t in backbone.state.items() if name.endswith(last) and not t.any()]
    stages = {stage: compare(found[stage], wanted[stage]) for stage in wanted if stage in found}
    return Parity(framework, stages, wrong, silent)


def _own(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Return the maps of our own network for ``images`` at every stage."""
    with torch.random.fork_rng(devices=[]):
        network: Any = build_network(backbone.spec).eval()
    network.load_state_dict(backbone.state)
    return network.forward_stages(images)


def _undilated(backbone: Backbone) -> Backbone:
    spec = backbone.spec
    if not isinstance(spec, BackboneSpec):
        return backbone
    return replace(backbone, spec=replace(spec, output_stride=spec.natural_stride))


def _check_same_kind(backbone: Backbone, other: Backbone, path: str | PathLike[str]) -> None:
    """Raise `UserError` if the backbone in ``path`` has another spec than ``backbone``."""
    mine, theirs = (replace(_undilated(t), state={}, extras={}, source="") for t in (backbone, other))
    if mine.spec != theirs.spec:
        raise UserError(
            f"{path} holds {an(theirs.spec.title)}, {backbone.source} {an(mine.spec.title)}"
            f"{_other_fields(mine.spec, theirs.spec)}; different networks cannot have equal weights; "
            "give two files of the same network"
        )


def _other_fields(mine: Spec, theirs: Spec) -> str:
    """Return the fields in which two specs of the same title differ, for use in a message; empty if the titles differ."""
    if mine.title != theirs.title:
        return ""
    before, now = mine.as_dict(), theirs.as_dict()
    return f" ({', '.join(f'{name} {now[name]} and {before[name]}' for name in now if now[name] != before[name])})"


def probe(spec: Spec | None = None) -> Tensor:
    """Return two fixed normalised images (2, 3, 64, 96): smooth like photographs, with a little noise, not square.

    For a backbone by name they have the size that its network usually takes, because it may take no other.
    """
    size = usual_size(spec) if isinstance(spec, NamedSpec) else (64, 96)
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 3, 5, 7, generator=random)
    smooth = F.interpolate(coarse, size=size, mode="bicubic", align_corners=True)
    return smooth + 0.2 * torch.randn(2, 3, *size, generator=random)


def compare(found: Tensor, wanted: Tensor) -> Difference:
    """Return the difference of two maps; infinite if shapes differ or if ``wanted`` is 0 everywhere and so shows nothing."""
    scale = wanted.abs().max().item()
    if found.shape != wanted.shape or scale == 0:
        return Difference(float("inf"), float("inf"))
    largest = (found - wanted).abs().max().item()
    return Difference(largest, largest / scale)


def _pyramid_head_maps(backbone: Backbone, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the maps of `FrameworkModel.pyramid_head`, computed by our own modules from ``maps``."""
    with torch.device("meta"):
        reference = pyramid_head_model.build(backbone.pretrainable, backbone.extras).eval()
    reference.load_state_dict(backbone.extras, assign=True)
    levels = reference["fpn"](maps)
    if "box" in reference:
        return levels | {pyramid_head.BOX: reference["box"](pyramid_head_model.regions(backbone.extras))}
    towers = pyramid_head.TOWERS if "head" in reference else ()
    return levels | {f"{level} {tower}": reference["head"](x) for level, x in levels.items() for tower in towers}


def _maps(built: FrameworkModel, images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of the stages during the framework's own forward pass."""
    if built.maps is not None:
        return built.maps(images)
    maps: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            maps[stage] = output

        return hook

    hooks = [built.model.get_submodule(name).register_forward_hook(keep(stage)) for stage, name in built.stages.items()]
    try:
        built.run(images)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
