"""What a backbone by name changes in a config of MMSegmentation. Importing it does not import PyTorch."""

from __future__ import annotations

from typing import Any

from pixbench.errors import UserError
from pretrain.models.named_spec import NamedSpec

TYPE = "NamedBackbone"
"""Class of such backbones, see `transfer.segmentation.named_backbone`."""
BY_STAGE = "StageDecay"
"""Class of an optimiser with learning rates by stage, see `transfer.segmentation.stage_decay`."""
LONGER = 97
"""Pixels by which a picture is longer than a crop, as an example of other sizes."""
HEADS = 4
"""Number of maps that the heads of MMSegmentation choose from."""


def outputs(spec: NamedSpec) -> dict[str, int]:
    """Return the stages whose maps the heads get -> their channels; the last one is that of the spec.

    Raises:
        UserError: The network has fewer than four.
    """
    from pretrain.models.named_look import look

    seen = look(spec)
    names = [*seen.stages]
    upto = names[: names.index(seen.taken) + 1][-HEADS:]
    if len(upto) < HEADS:
        raise UserError(
            f"backbone {spec.name} has {len(upto)} maps up to stride {seen.stages[seen.taken].stride}, but the heads of "
            f"MMSegmentation take {HEADS}; choose another network, or a larger backbone.output_stride"
        )
    return {name: seen.stages[name].channels for name in upto}


def as_options(spec: NamedSpec, frozen: bool) -> dict[str, Any]:
    """Return ``model.backbone`` for ``spec``."""
    return {"type": TYPE, **spec.as_dict(), "frozen": frozen}


def as_spec(options: Any) -> NamedSpec:
    """Return the spec of such a ``model.backbone``."""
    return NamedSpec(options["name"], dict(options["options"]), options["output_stride"])


def check_sizes(spec: NamedSpec, crop: tuple[int, int], whole: bool) -> None:
    """Raise UserError if the network does not take padded crops (height, width), or other sizes if pictures are tested whole."""
    from pretrain.models.named_sizes import check_size, needed_multiple

    multiple = needed_multiple(spec) or 1
    for more in (0, LONGER) if whole else (0,):
        check_size(spec, *(-(-side // multiple) * multiple for side in (crop[0], crop[1] + more)))


def neck(spec: NamedSpec, given: Any) -> dict[str, Any]:
    """Return the neck that makes maps of several strides of the equal ones of a ViT, for heads that take several maps.

    It is ``given``, a MultiLevelNeck, in the width of the network, or else `Feature2Pyramid` of MMSegmentation, with the
    factors of its configs of BEiT and MAE with UPerNet. With patches of 16 pixels the strides become 4, 8, 16 and 32.
    """
    width = next(iter(outputs(spec).values()))
    if given:
        return {**given, "in_channels": [width] * HEADS, "out_channels": width}
    return {"type": "Feature2Pyramid", "embed_dim": width, "rescales": [4, 2, 1, 0.5]}


def check_stages(spec: NamedSpec) -> None:
    """Raise UserError if the network has no stages, which a learning rate by stage needs."""
    from pretrain.models.families import is_plain
    from pretrain.models.named_stages import stage_places

    if is_plain(spec):
        raise UserError(
            f"{spec.title} has no stages, for which this protocol has learning rates of their own; choose a protocol for ViTs"
        )
    stage_places(spec)


def stride(spec: NamedSpec) -> int:
    """Return the side in pixels of a cell of the last map that the heads get."""
    from pretrain.models.families import map_stride

    return map_stride(spec)
