"""Look at a network by name: which maps it makes, and from which parameters.

This is not taken from its description. It is seen in one pass over an empty image, on PyTorch's meta device, where nothing is
computed.

Shapes: B images of H × W pixels, C channels, a map has h × w cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from pixbench.errors import UserError
from pretrain.models.named_build import empty, refuse_reading, said
from pretrain.models.named_spec import NamedSpec

BLOCKS = 4
"""Number of maps of a network whose maps all have one stride, such as a ViT: after each quarter of its blocks."""
_STAGES = {2: "stem", 4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
"""Names of the stages of a hierarchical network, by stride: those of a ResNet."""
USUAL = 224
"""Side in pixels of images for networks that do not say which they take."""


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
    net, size = empty(spec), usual_size(spec)
    with torch.enable_grad():
        found = maps_of_empty(spec, net, *size)
    strides = _strides(spec, net, *size, found)
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


def usual_size(spec: NamedSpec) -> tuple[int, int]:
    """Return height and width in pixels of images that the network takes: its option img_size, or those of its weights.

    Raises:
        UserError: The option is no size.
    """
    given = spec.options.get("img_size")
    if given is None and spec.family == "timm":
        import timm

        usual = timm.get_pretrained_cfg(spec.function)
        given = [*usual.input_size[-2:]] if usual else None
    sides = [USUAL if given is None else given] * 2 if not isinstance(given, list) else given
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise UserError(
            f"backbone.options.img_size is {given!r}; give {spec.name} a number of pixels, or [height, width]"
        )
    return sides[0], sides[1]


def maps_of(net: Any, x: Tensor, indices: Sequence[int] | None) -> list[Tensor]:
    """Return the maps (B, C, h, w) at the places ``indices`` (None: all) for images ``x`` (B, 3, H, W)."""
    if hasattr(net, "forward_intermediates"):
        plain = len({stage["reduction"] for stage in net.feature_info}) == 1
        chosen = indices if indices is None else list(indices)
        found: list[Tensor] = net.forward_intermediates(x, indices=chosen, norm=plain, intermediates_only=True)
        return found
    given = net(x)
    if (
        not isinstance(given, list | tuple)
        or not given
        or not all(isinstance(x, Tensor) and x.dim() == 4 for x in given)
    ):
        raise UserError(
            f"backbone {type(net).__name__} must return a list of maps (B, C, h, w), see docs/methods/backbones.md"
        )
    return [given[i] for i in (range(len(given)) if indices is None else indices)]


def maps_of_empty(spec: NamedSpec, net: nn.Module, height: int, width: int) -> list[Tensor]:
    """Return all maps of an empty image of ``height`` × ``width`` pixels."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode(False):
            found = maps_of(net, torch.empty(2, 3, height, width), None)  # two, for batch norms after a pooling
    except UserError:
        raise
    except Exception as error:
        refuse_reading(spec, error)
        raise UserError(
            f"backbone {spec.name} does not take images of {height} × {width} pixels ({said(error)}); choose "
            f"another size (data.image_size in pre-training), or tell the network the size, in most networks of timm with "
            f"backbone.options.img_size"
        ) from error
    if wrong := {str(x.dtype).removeprefix("torch.") for x in found} - {"float32"}:
        raise UserError(
            f"backbone {spec.name} gives maps of {', '.join(sorted(wrong))}; they must be of float32, as its images are: the "
            "setting precision chooses another type for the computation"
        )
    if spec.family != "timm":
        seen = [
            (x.shape[1], stride) for x, stride in zip(found, _strides(spec, net, height, width, found), strict=True)
        ]
        declared: Any = net
        channels, strides = [*declared.channels], [*declared.strides]
        if (channels, strides) != ([c for c, _ in seen], [s for _, s in seen]):
            raise UserError(
                f"backbone {spec.name} declares channels {channels} and strides {strides}, but for images of {height} × {width} "
                f"pixels it gives maps of (channels, stride) {seen}; correct these attributes"
            )
    return found


def _strides(spec: NamedSpec, net: Any, height: int, width: int, found: Sequence[Tensor]) -> list[int]:
    """Return the side of a cell of each map of images of ``height`` × ``width`` pixels.

    The number of cells alone may be that of several strides: 4 cells make 56 pixels with strides of 14 and of 16. Then the
    stride is the one that the network declares.
    """
    declared = [stage["reduction"] for stage in getattr(net, "feature_info", ())] or [*getattr(net, "strides", ())]
    known = declared[: len(found)] + [0] * (len(found) - len(declared))
    return [_stride(spec, height, width, x, stride) for x, stride in zip(found, known, strict=True)]


def _stride(spec: NamedSpec, height: int, width: int, x: Tensor, declared: int) -> int:
    """Return the side of a cell of the map ``x`` (B, C, h, w) of images of ``height`` × ``width`` pixels."""
    cells = tuple(x.shape[2:])
    likely = [declared, *(2**power for power in range(8)), round(height / max(cells[0], 1))]
    stride = next((s for s in likely if type(s) is int and s > 0 and (-(-height // s), -(-width // s)) == cells), 0)
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
