"""Which sizes of images a network by name takes."""

from __future__ import annotations

from functools import lru_cache

import torch

from pixbench.errors import UserError
from pretrain.models.named_build import empty
from pretrain.models.named_look import look, maps_of_empty, usual_size
from pretrain.models.named_spec import NamedSpec


def check_size(spec: NamedSpec, height: int, width: int) -> None:
    """Raise UserError if the network does not take images of ``height`` × ``width`` pixels."""
    multiple = needed_multiple(spec)
    if multiple is None or height % multiple or width % multiple:
        with torch.no_grad():
            maps_of_empty(spec, empty(spec), height, width)


@lru_cache(maxsize=64)
def needed_multiple(spec: NamedSpec) -> int | None:
    """Return the number of pixels of which all sides of images must be multiples; None if the network takes some sizes only.

    It is 1 for a network that takes any size, and the side of the smallest cell for one that cuts images into patches. Two
    images of odd sizes show it.
    """
    (height, width), cell = usual_size(spec), min(stage.stride for stage in look(spec).stages.values())
    for multiple in (1, cell):
        try:
            with torch.no_grad():
                maps_of_empty(spec, empty(spec), height + multiple, width + 3 * multiple)
        except UserError:
            continue
        return multiple
    return None
