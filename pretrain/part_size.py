"""Check at the start that a batch, or the part of it that goes through the network at once, is large enough for a method.

Batch norm needs two values in each channel, and a loss that compares images needs two images.
"""

from __future__ import annotations

import numpy as np

from pixbench.errors import UserError
from pretrain.methods import METHODS
from pretrain.models.families import map_stride
from pretrain.settings import RunConfig


def check_part(config: RunConfig, processes: int, synchronised: bool) -> None:
    """Check the size of the parts of a batch.

    Args:
        config: settings of the run; ``batch_size`` is a multiple of ``processes``.
        processes: number of processes.
        synchronised: whether batch norm has the images of all processes.

    Raises:
        UserError: The parts are not equal, or too small. The message says how many images they need.
    """
    method, settings, name = METHODS[config.method.name], config.method.settings, config.method.name
    local = config.batch_size // processes
    if local % config.accumulate:
        raise UserError(
            f"accumulate {config.accumulate} does not divide the {local} images of each process per step; choose a divisor of "
            f"{local}"
        )
    own = local // config.accumulate
    count = (
        f"batch_size {config.batch_size} / {processes} process{'es' * (processes > 1)} / accumulate {config.accumulate}"
    )
    if method.compares_images(settings) and own * processes < 2:
        raise UserError(
            f"{name} compares images of one part of a batch with one another, so a part needs at least 2 images; it has 1 "
            f"({count}): raise batch_size or lower accumulate"
        )
    side = -(-config.data.image_size // map_stride(config.backbone))
    cells = (
        f"data.image_size, with which C5 has {side} × {side} cells"
        if side > 1
        else "data.image_size, with which C5 has 1 cell"
    )
    if side < method.least_side:
        raise UserError(f"{name} compares the cells of C5, so there must be more than one: raise {cells}")
    if (own * processes if synchronised else own) * method.values_per_image(settings, side) < 2:
        way_out = f", or raise {cells}" if method.values_per_image(settings, 4 * side) > 1 else ""
        raise UserError(
            f"batch norm in {name} needs 2 values in each channel, so a part of a batch needs at least 2 images"
            f"{' in each process' if processes > 1 and not synchronised else ''}; it has 1 ({count}): raise batch_size or "
            f"lower accumulate{way_out}"
        )


def advice(config: RunConfig, labels: np.ndarray) -> list[str]:
    """Return a warning for each thing that a run on images with these ``labels`` (n,) can do, but learns little from."""
    name, settings, images, said = config.method.name, config.method.settings, len(labels), []
    if (size := getattr(settings, "queue_size", 0)) > images:
        said.append(
            f"warning: the queue has {size} keys, but there are only {images} images: most negatives are other views of the same "
            f"images, the positive's too; set method.queue_size to {images // config.batch_size * config.batch_size} or less"
        )
    if hasattr(settings, "classes") and labels[0] >= 0 and (labels == labels[0]).all():
        said.append(f"warning: all images are of one class, so {name} has nothing to tell apart; add other classes")
    return said
