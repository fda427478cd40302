"""Draw the two views of a few images side by side, with the cells that are positive pairs.

Shapes: S view size, D side of a drawn view, (H, W) map of cells, N = H·W cells, cell index y·W + x.
"""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pretrain.data.augment import MEAN, STD
from pretrain.data.views import Views
from pretrain.losses.geometry import cell_distances, positive_mask
from pretrain.models.families import map_stride
from pretrain.run import Run
from pretrain.settings import RunConfig

IMAGES = 4
LEAST_SIDE = 224
"""Smaller views are enlarged by a whole factor to at least so many pixels."""
GAP = 8
"""White pixels between two views, and between two images."""
FADED = 0.7
"""Part of white in a cell without a partner, and outside the overlap of two views."""

Colour = tuple[int, int, int]


def is_due(run: Run) -> bool:
    """Return whether views are drawn after the last finished step: the first one, and every `log.views_every` epochs."""
    every = run.config.log.views_every
    return every > 0 and (run.step == 1 or run.step % (run.steps_per_epoch * every) == 0)


def picture(config: RunConfig, views: Views) -> np.ndarray:
    """Return the first `IMAGES` images of ``views`` below one another, view 1 left and view 2 right: (height, width, 3) uint8.

    For a method whose settings have a `threshold`, the cells of C5 are drawn: a cell of view 2 with a positive pair has the
    colour of its nearest partner in view 1. For another method, only what both views show keeps its colours.
    """
    few = {name: part[:IMAGES] for name, part in views._asdict().items() if part is not None}
    views = views._replace(**few).ready()
    threshold = getattr(config.method.settings, "threshold", None)
    cells = -(-config.data.image_size // map_stride(config.backbone))
    rows = []
    for index in range(len(views.view1)):
        boxes = views.box1[index].double().cpu(), views.box2[index].double().cpu()
        drawn = [_enlarged(to_uint8(view[index])) for view in (views.view1, views.view2)]
        if threshold is None:
            for image, box, other in zip(drawn, boxes, boxes[::-1], strict=True):
                draw_overlap(image, overlap(box, other))
        else:
            for image, colours in zip(drawn, cell_colours(*boxes, cells, threshold), strict=True):
                draw_cells(image, colours, cells)
        gap = np.full((drawn[0].height, GAP, 3), 255, dtype=np.uint8)
        rows.append(np.hstack([np.asarray(drawn[0]), gap, np.asarray(drawn[1])]))
    between = np.full((GAP, rows[0].shape[1], 3), 255, dtype=np.uint8)
    return np.vstack([part for row in rows for part in (row, between)][:-1])


def to_uint8(view: Tensor) -> np.ndarray:
    """Undo the normalisation of a view (3, S, S): (S, S, 3) uint8."""
    mean, std = (torch.tensor(x, device=view.device).view(3, 1, 1) for x in (MEAN, STD))
    return ((view * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def cell_colours(
    box1: Tensor, box2: Tensor, cells: int, threshold: float
) -> tuple[list[Colour | None], list[Colour | None]]:
    """Return a colour for each of the N = ``cells``² cells of both views; None for a cell without a positive pair.

    A cell of view 1 has the colour of its place in view 1, a cell of view 2 that of its nearest partner.
    """
    shape = (cells, cells)
    mask = positive_mask(box1[None], box2[None], shape, threshold)[0]  # (N, N)
    distances = cell_distances(box1[None], box2[None], shape)[0].masked_fill(~mask, torch.inf)
    palette = [_colour(*divmod(cell, cells), cells) for cell in range(cells**2)]
    first = [palette[cell] if paired else None for cell, paired in enumerate(mask.any(1).tolist())]
    nearest, paired = distances.argmin(0).tolist(), mask.any(0).tolist()
    return first, [palette[nearest[cell]] if paired[cell] else None for cell in range(cells**2)]


def _colour(row: int, column: int, cells: int) -> Colour:
    """Return the colour of a cell: the hue goes from left to right, the brightness from top to bottom."""
    red, green, blue = colorsys.hsv_to_rgb(0.85 * column / cells, 1.0, 1.0 - 0.6 * row / cells)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_cells(image: Image.Image, colours: list[Colour | None], cells: int) -> None:
    """Frame each cell of the square ``image`` in its colour; fade those without one."""
    edges = [round(k * image.width / cells) for k in range(cells + 1)]
    pen, width = ImageDraw.Draw(image), max(2, image.width // cells // 10)
    for cell, colour in enumerate(colours):
        row, column = divmod(cell, cells)
        ends = edges[column], edges[row], edges[column + 1], edges[row + 1]
        if colour is None:
            _fade(image, ends)
        else:
            pen.rectangle((ends[0], ends[1], ends[2] - 1, ends[3] - 1), outline=colour, width=width)


def overlap(box: Tensor, other: Tensor) -> tuple[float, float, float, float] | None:
    """Return what ``other`` shows of ``box`` as left, top, right, bottom in fractions of the view of ``box``; None if nothing."""
    ends = []
    for low, high, start, end in ((box[0], box[2], other[0], other[2]), (box[1], box[3], other[1], other[3])):
        one, two = (
            float((start - low) / (high - low)),
            float((end - low) / (high - low)),
        )  # a flipped view has low > high
        ends.append((max(0.0, min(one, two)), min(1.0, max(one, two))))
    (left, right), (top, bottom) = ends
    return (left, top, right, bottom) if left < right and top < bottom else None


def draw_overlap(image: Image.Image, part: tuple[float, float, float, float] | None) -> None:
    """Fade the square ``image`` outside ``part`` (fractions of its side) and frame that part in green."""
    left, top, right, bottom = (round(end * image.width) for end in part or (0, 0, 0, 0))
    clear = image.crop((left, top, right, bottom))
    _fade(image, (0, 0, image.width, image.height))
    if part:
        image.paste(clear, (left, top))
        ImageDraw.Draw(image).rectangle((left, top, right - 1, bottom - 1), outline=(0, 220, 0), width=2)


def _fade(image: Image.Image, ends: tuple[int, int, int, int]) -> None:
    part = image.crop(ends)
    image.paste(Image.blend(part, Image.new("RGB", part.size, "white"), FADED), ends[:2])


def _enlarged(view: np.ndarray) -> Image.Image:
    factor = -(-LEAST_SIDE // len(view))
    return Image.fromarray(view).resize((factor * len(view),) * 2, Image.Resampling.NEAREST)
