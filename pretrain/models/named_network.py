"""Backbones that are built by their name: networks of timm, and networks of one's own.

What a network gives is not taken from its description: it is seen in one pass over an empty image, on PyTorch's meta device,
where nothing is computed. Parameters that no map depends on, such as those of a norm before a classifier, are not trained.

Shapes: B images of H × W pixels, C channels.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from pixbench.errors import UserError, did_you_mean
from pretrain.models.backbone_spec import STAGES
from pretrain.models.feature_network import FeatureNetwork
from pretrain.models.named_spec import NamedSpec

BLOCKS = 4
"""Number of maps of a network whose maps all have one stride, such as a ViT: after each quarter of its blocks."""
_STAGES = {2: "stem", 4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
_BETWEEN_STAGES = re.compile(r"net\.(?:stages|layers)\.\d+\.downsample\.")
"""Layers of ConvNeXt, Swin and their relatives that begin a stage; shortcuts of blocks have other names."""
"""Names of the stages of a hierarchical network, by stride: those of a ResNet."""


class NamedNetwork(FeatureNetwork):
    """Network of a `NamedSpec`. Its parameters have the names of the network itself, after "net.".

    A hierarchical network has the stages "stem" (stride 2), "layer1" (4) to "layer4" (32), as far as it has maps of these
    strides, and others by their stride ("stride64"). A plain one (all maps of one stride, such as a ViT) has "block N" after
    each quarter of its blocks, and its last norm, if any, is applied to each map.

    Raises:
        UserError: There is no such network, it does not take these options, or it makes no maps.
    """

    net: Any

    def __init__(self, spec: NamedSpec) -> None:
        super().__init__()
        seen = look(spec)
        self.spec = spec
        self.net = _build(spec)
        self.stage_channels, self.stage_strides = seen.stage_channels, seen.stage_strides
        self.indices = {name: stage.index for name, stage in seen.stages.items()}
        self.taken = seen.taken
        self.channels, self.stride = self.stage_channels[self.taken], self.stage_strides[self.taken]
        self.has_tokens = _has_tokens(self.net)
        self.learn_for([self.taken])

    def learn_for(self, stages: Iterable[str]) -> None:
        """Let the parameters learn that the maps of ``stages`` depend on, and no others."""
        behind = look(self.spec).behind
        used = frozenset[str]().union(*(behind[stage] for stage in stages))
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(name in used)

    def forward_stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the maps (B, C, h, w) of all stages for images ``x`` (B, 3, H, W)."""
        return dict(zip(self.indices, _maps(self.net, x, [*self.indices.values()]), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return the map (B, channels, H / stride, W / stride), rounded up, of the stage that the spec chooses."""
        return _maps(self.net, x, [self.indices[self.taken]])[0]

    def tokens(self, x: Tensor, mask: Tensor | None = None, mask_token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the class token (B, C) and the patch tokens (B, h·w, C) of images ``x`` (B, 3, H, W), after the last norm.

        Patches at which ``mask`` (B, h, w) is True are seen as ``mask_token`` (1, C), at their positions.
        """

        def masked(module: nn.Module, given: object, patches: Tensor) -> Tensor:
            assert mask is not None
            assert mask_token is not None
            return torch.where(mask.view(*patches.shape[:-1], 1), mask_token.to(patches.dtype), patches)

        hook = None if mask is None else self.net.patch_embed.register_forward_hook(masked)
        try:
            [(cells, prefix)] = self.net.forward_intermediates(
                x, indices=1, norm=True, intermediates_only=True, return_prefix_tokens=True
            )
        finally:
            if hook is not None:
                hook.remove()
        return prefix[:, 0], cells.flatten(2).transpose(1, 2)

    def keep_inputs_only(self) -> None:
        """Let the network's blocks compute their inside again for the backward pass, as timm's networks can."""
        if not hasattr(self.net, "set_grad_checkpointing"):
            raise UserError(
                f"backbone {self.spec.name} has no method set_grad_checkpointing, as timm's networks have; set "
                "activation_checkpointing to false"
            )
        self.net.set_grad_checkpointing(True)

    def layer_groups(self) -> list[list[str]]:
        """Return the names of the parameters in layers, by the ``group_matcher`` of timm's networks."""
        return self._groups(coarse=False)

    def stage_places(self) -> dict[str, int]:
        """Return the name of each parameter -> 0 for the stem and for downsampling, or the number of its stage, from 1.

        Raises:
            UserError: The network has no such order.
        """
        behind = look(self.spec).behind
        stages = [frozenset(f"net.{name}" for name in behind.get(stage, ())) for stage in STAGES[1:]]
        places = {name: place for place, names in enumerate(self._groups(coarse=True)) for name in names}
        for name, place in places.items():
            first = next((number for number, names in enumerate(stages, 1) if name in names), place)
            if place and place != first:
                raise UserError(
                    f"{self.spec.title} has no learning rates by stage: its group_matcher puts {name} into part {place}, but it "
                    f"belongs to stage {first}; choose a protocol without a learning rate by stage"
                )
        return {name: 0 if _BETWEEN_STAGES.match(name) else place for name, place in places.items()}

    def _groups(self, coarse: bool) -> list[list[str]]:
        if not hasattr(self.net, "group_matcher"):
            raise UserError(
                f"backbone {self.spec.name} has no method group_matcher, as timm's networks have, so its layers are not known; "
                "choose settings without a learning rate by layer (in pre-training, optimizer.layer_decay 1)"
            )
        from timm.models import group_parameters

        groups = group_parameters(self.net, self.net.group_matcher(coarse=coarse))
        return [[f"net.{name}" for name in groups[layer]] for layer in sorted(groups)]


@dataclass(frozen=True)
class Stage:
    """One map of a network."""

    index: int
    """Its place among all maps of the network."""
    channels: int
    stride: int
    """Side of a cell in pixels."""


@dataclass(frozen=True)
class Seen:
    """What one pass over an empty image shows of a network."""

    stages: dict[str, Stage]
    taken: str
    """The stage whose map methods take."""
    behind: dict[str, frozenset[str]]
    """Stage -> names of the parameters that its map depends on."""

    @property
    def stage_channels(self) -> dict[str, int]:
        """Number of channels of the map of each stage."""
        return {name: stage.channels for name, stage in self.stages.items()}

    @property
    def stage_strides(self) -> dict[str, int]:
        """Side of a cell of the map of each stage in pixels."""
        return {name: stage.stride for name, stage in self.stages.items()}


@lru_cache(maxsize=64)
def look(spec: NamedSpec) -> Seen:
    """Return the stages of the network of ``spec``. The global random state does not change.

    Raises:
        UserError: As for `NamedNetwork`.
    """
    net, side = _empty(spec), usual_side(spec)
    with torch.enable_grad():
        found = _pass(spec, net, side, side)
    strides = [_stride(spec, side, side, x) for x in found]
    if len(set(strides)) == 1:
        ends = sorted({round(len(found) * quarter / BLOCKS) - 1 for quarter in range(1, BLOCKS + 1)} - {-1})
        stages = {f"block {i + 1}": Stage(i, found[i].shape[1], strides[i]) for i in ends}
    else:
        last = {stride: i for i, stride in enumerate(strides)}
        stages = {_STAGES.get(s, f"stride{s}"): Stage(i, found[i].shape[1], s) for s, i in last.items()}
    taken = next((name for name, s in reversed(stages.items()) if spec.output_stride in (0, s.stride)), None)
    if taken is None:
        raise UserError(
            f"backbone {spec.name} has no map of stride {spec.output_stride}; choose backbone.output_stride from "
            f"{', '.join(map(str, dict.fromkeys(strides)))}, or 0 for the last map"
        )
    names = {id(x): name for name, x in net.named_parameters()}
    behind = {name: frozenset(names[x] for x in _behind(found[s.index]) if x in names) for name, s in stages.items()}
    return Seen(stages, taken, behind)


def check_size(spec: NamedSpec, height: int, width: int) -> None:
    """Raise UserError if the network does not take images of ``height`` × ``width`` pixels."""
    multiple = needed_multiple(spec)
    if multiple is None or height % multiple or width % multiple:
        with torch.no_grad():
            _pass(spec, _empty(spec), height, width)


@lru_cache(maxsize=64)
def needed_multiple(spec: NamedSpec) -> int | None:
    """Return the number of pixels of which all sides of images must be multiples; None if the network takes some sizes only.

    It is 1 for a network that takes any size, and the side of the smallest cell for one that cuts images into patches. Two
    images of odd sizes show it.
    """
    side, cell = usual_side(spec), min(stage.stride for stage in look(spec).stages.values())
    for multiple in (1, cell):
        try:
            with torch.no_grad():
                _pass(spec, _empty(spec), side + multiple, side + 3 * multiple)
        except UserError:
            continue
        return multiple
    return None


@lru_cache(maxsize=16)
def _empty(spec: NamedSpec) -> nn.Module:
    """Return the network with parameters that have a shape, but no values. It is shared: do not change it."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return _build(spec)


def _build(spec: NamedSpec) -> nn.Module:
    try:
        return _of_timm(spec) if spec.family == "timm" else _of_ones_own(spec)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        _refuse_reading(spec, error)
        raise UserError(
            f"backbone {spec.name} cannot be built with options {spec.options} ({_said(error)}); look at the arguments of that "
            "network"
        ) from error


def _of_timm(spec: NamedSpec) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"backbone {spec.name} needs the package timm: pip install timm") from error
    name, options = spec.function, spec.options
    if not timm.is_model(name):
        raise UserError(f"timm has no network {name!r}{did_you_mean(name.partition('.')[0], timm.list_models())}")
    if taken := {"pretrained", "num_classes", "features_only", "checkpoint_path"} & options.keys():
        raise UserError(
            f"backbone.options has {', '.join(sorted(taken))}, which PixBench sets itself; to start from published weights, "
            f"give init_from timm:{name}"
        )
    try:  # positions for other sizes of images are interpolated, in networks that can
        return timm.create_model(name, num_classes=0, **{"dynamic_img_size": True, **options})
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return timm.create_model(name, num_classes=0, **options)


def _of_ones_own(spec: NamedSpec) -> nn.Module:
    here = os.getcwd()
    if here not in sys.path:  # as with python -m
        sys.path.insert(0, here)
    try:
        function: Any = getattr(importlib.import_module(spec.family), spec.function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"backbone {spec.name} is not found ({error}); the module must be installed or lie below the current folder"
        ) from error
    network = function(**spec.options)
    declared = [getattr(network, name, None) for name in ("channels", "strides")]
    if not isinstance(network, nn.Module) or not all(isinstance(x, list | tuple) for x in declared):
        raise UserError(
            f"backbone {spec.name} must return a torch.nn.Module with the attributes channels and strides, a number for each "
            "map, see docs/methods/backbones.md"
        )
    return network


def _maps(net: Any, x: Tensor, indices: Sequence[int] | None) -> list[Tensor]:
    """Return the maps (B, C, h, w) at the places ``indices`` (None: all) for images ``x`` (B, 3, H, W)."""
    if hasattr(net, "forward_intermediates"):
        plain = len({stage["reduction"] for stage in net.feature_info}) == 1
        chosen = indices if indices is None else list(indices)
        found: list[Tensor] = net.forward_intermediates(x, indices=chosen, norm=plain, intermediates_only=True)
        return found
    maps = net(x)
    if not isinstance(maps, list | tuple) or not all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
        raise UserError(
            f"backbone {type(net).__name__} must return a list of maps (B, C, h, w), see docs/methods/backbones.md"
        )
    return [maps[i] for i in (range(len(maps)) if indices is None else indices)]


def _has_tokens(net: nn.Module) -> bool:
    """Return whether ``net`` is a Vision Transformer of timm that has a class token and keeps all patches."""
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError:
        return False
    return isinstance(net, VisionTransformer) and net.cls_token is not None and isinstance(net.patch_drop, nn.Identity)


def usual_side(spec: NamedSpec) -> int:
    """Return the side in pixels of images that the network takes."""
    if spec.family != "timm" or "img_size" in spec.options:
        side = spec.options.get("img_size", USUAL)
        return int(side[0] if isinstance(side, list) else side)
    import timm

    usual = timm.get_pretrained_cfg(spec.function)
    return int(usual.input_size[-1]) if usual else USUAL


def _pass(spec: NamedSpec, net: nn.Module, height: int, width: int) -> list[Tensor]:
    """Return all maps of an empty image of ``height`` × ``width`` pixels."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode(False):
            found = _maps(net, torch.empty(2, 3, height, width), None)  # two, for batch norms after a pooling
    except UserError:
        raise
    except Exception as error:
        _refuse_reading(spec, error)
        raise UserError(
            f"backbone {spec.name} does not take images of {height} × {width} pixels ({_said(error)}); choose "
            f"another size (data.image_size in pre-training), or tell the network the size, in most networks of timm with "
            f"backbone.options.img_size"
        ) from error
    if spec.family != "timm":
        seen = [(x.shape[1], _stride(spec, height, width, x)) for x in found]
        declared: Any = net
        channels, strides = [*declared.channels], [*declared.strides]
        if (channels, strides) != ([c for c, _ in seen], [s for _, s in seen]):
            raise UserError(
                f"backbone {spec.name} declares channels {channels} and strides {strides}, but for images of {height} × {width} "
                f"pixels it gives maps of (channels, stride) {seen}; correct these attributes"
            )
    return found


def _refuse_reading(spec: NamedSpec, error: Exception) -> None:
    """Raise UserError if ``error`` says that the network asked for values on the meta device, which has none."""
    if re.search(r"\bmeta\b", str(error), re.IGNORECASE):
        raise UserError(
            f"backbone {spec.name} cannot be measured, because it reads values, and PixBench looks at a network with an empty "
            f"image, without values ({_said(error)}); choose another network"
        ) from error


def _stride(spec: NamedSpec, height: int, width: int, x: Tensor) -> int:
    """Return the side of a cell of the map ``x`` (B, C, h, w) of images of ``height`` × ``width`` pixels."""
    cells = tuple(x.shape[2:])
    likely = [
        *(2**power for power in range(8)),
        round(height / max(cells[0], 1)),
    ]  # 4 cells of 64 pixels, not of 56, make 224
    stride = next((s for s in likely if s and (-(-height // s), -(-width // s)) == cells), 0)
    if not stride:
        raise UserError(
            f"backbone {spec.name} makes a map of {cells[0]} × {cells[1]} cells of an image of {height} × {width} pixels, so a "
            "cell is not a whole number of pixels; its cells have no place that PixBench knows, choose another network"
        )
    return stride


def _behind(x: Tensor) -> set[int]:
    """Return the ids of the parameters that ``x`` was computed from."""
    found, seen, todo = set(), set(), [x.grad_fn]
    while todo:
        node: Any = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo += [before for before, _ in node.next_functions]
    return found


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


USUAL = 224
"""Side in pixels of images for networks that do not say which they take."""
