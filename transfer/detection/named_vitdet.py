"""Backbones by name in ViTDet: what its config says of them, and what they lack.

ViTDet's pyramid is made from one map with cells of 16 pixels, so hierarchical networks and other patches are refused; patches
of 14 pixels, those of DINOv2, are resized as published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode

from pixbench.errors import UserError
from pretrain.models.named_look import look
from pretrain.models.named_network import with_shapes_only
from pretrain.models.named_sizes import check_size
from pretrain.models.named_spec import NamedSpec
from pretrain.models.shapes_only import shapes_only
from transfer.detection.plain_network import PlainNetwork, attentions, dropping
from transfer.protocols import names_with
from transfer.weights.larger_patches import PATCH, RESIZED

NET = "VITDET.MODEL.backbone.net"
"""Node of the config that describes the network."""


class Parts(NamedTuple):
    """What a network has that ViTDet needs."""

    blocks: int
    """Number of blocks whose attention can be confined to windows; 0 if not all can."""
    drop_path: bool
    layers: bool
    """Whether the order of its layers is known, for the decay of the learning rate."""


@lru_cache(maxsize=64)
def parts(spec: NamedSpec) -> Parts:
    """Return what the network of ``spec`` has."""
    network = with_shapes_only(spec)
    return Parts(
        len(attentions(network.net)),
        drop_path=_works(look, dropping(spec, 0.1)),
        layers=_works(network.layer_groups),
    )


def plain_options(cfg: CfgNode, spec: NamedSpec, given: Mapping[str, Any]) -> None:
    """Set ``cfg`` so that it builds ViTDet on the backbone ``spec``, as far as the overrides ``given`` do not.

    The windows of the protocol are those of 12 blocks. The blocks that attend to the whole image end equal parts of any
    depth, as in ViTDet's own ViT-B, ViT-L and ViT-H.

    Raises:
        UserError: The protocol takes no such network, or an override has no meaning for it.
    """
    net, stages = cfg.VITDET.MODEL.backbone.net, look(spec).stages.values()
    if len({stage.stride for stage in stages}) > 1:
        raise UserError(
            f"{spec.title} has maps of several strides, but ViTDet makes its pyramid from the one map of a plain network; "
            f"choose a protocol with a feature pyramid of its maps ({names_with('detectron2_fpn')})"
        )
    if (stride := next(iter(stages)).stride) != PATCH:
        raise UserError(
            f"{spec.title} has cells of {stride} pixels, but ViTDet's heads need {PATCH}; only patches of {RESIZED} pixels are "
            f"resized, where the network takes the option patch_size; pre-train it with patches of {PATCH} pixels"
        )
    side = cfg.VITDET.MODEL.backbone.square_pad
    check_size(spec, side, side)
    kept = ("drop_path_rate", "window_size", "window_block_indexes")
    if idle := [key for key in given if key.startswith(f"{NET}.") and key.removeprefix(f"{NET}.") not in kept]:
        raise UserError(f"{idle[0]} is not for {spec.name}, which the checkpoint describes; leave it out")
    has = parts(spec)
    windows = spread(has.blocks, net.depth - len(net.window_block_indexes))
    if f"{NET}.window_block_indexes" in given:
        windows = list(net.window_block_indexes)
        if wrong := [i for i in windows if i not in range(has.blocks)]:
            raise UserError(
                f"{NET}.window_block_indexes: {spec.name} has {has.blocks} blocks whose attention can have windows, numbered "
                f"from 0, so there is no block {wrong[0]}"
            )
    described: dict[str, Any] = {"name": spec.name, "options": json.dumps(spec.options)}
    described |= {"drop_path_rate": net.drop_path_rate} if has.drop_path else {}
    described |= {"window_size": net.window_size, "window_block_indexes": windows}
    _try(described, side)
    cfg.VITDET.MODEL.backbone.net = CfgNode(described)
    if not has.layers:
        cfg.VITDET.LAYER_DECAY = 1.0


def of_plain(spec: NamedSpec) -> tuple[str, ...]:
    """Return a sentence for each way in which ViTDet on the network of ``spec`` is not the published one."""
    has, name = parts(spec), spec.name
    return (
        "the backbone keeps its own tokens, positions and last norm; ViTDet's own ViT has relative positions, and neither class "
        "token nor last norm",
        *([] if has.blocks else [f"no windows: {name} has no blocks with an attention of timm's that can have them"]),
        *([] if has.drop_path else [f"no drop path, as {name} does not take the option drop_path_rate"]),
        *([] if has.layers else [f"one learning rate for the whole backbone, as {name} has no group_matcher"]),
    )


def spread(depth: int, whole: int) -> list[int]:
    """Return the blocks that get windows if each of ``whole`` equal parts of ``depth`` blocks ends with one that has none."""
    ends = {round(depth * part / whole) - 1 for part in range(1, whole + 1)}
    return [block for block in range(depth) if block not in ends]


def _works(function: Any, *arguments: Any) -> bool:
    try:
        function(*arguments)
    except UserError:
        return False
    return True


def _try(described: dict[str, Any], side: int) -> None:
    """Raise UserError if the network that ``described`` builds does not compute with its windows, for images of this side."""
    try:
        with torch.no_grad():
            with shapes_only():
                network = PlainNetwork(**described)
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                network(torch.empty(2, 3, side, side))
    except (RuntimeError, ZeroDivisionError) as error:
        raise UserError(
            f"{described['name']} does not compute with windows of {described['window_size']} cells "
            f"({str(error).splitlines()[0]}); give its blocks no windows with --set {NET}.window_block_indexes=[]"
        ) from error
