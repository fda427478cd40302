"""Which cells of two feature maps show the same place of the source image.

Shapes: B batch, (H, W) map of both views, N = H·W cells, cell index y·W + x.
A box (x1, y1, x2, y2) is a crop in coordinates of the source image; x1 > x2 means that the view was mirrored
left-right, y1 > y2 top-bottom. Cells then have a negative width or height, and their centres come out right without a
special case. Source: `regression_loss` in `contrast/models/PixPro.py`; PixPro paper, Eq. 2 and the text around it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cell_sizes(boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Signed width and height (B,) each of the cells of a map of ``shape`` (H, W) over ``boxes`` (B, 4)."""
    height, width = shape
    return (boxes[:, 2] - boxes[:, 0]) / width, (boxes[:, 3] - boxes[:, 1]) / height


def cell_centres(boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """x and y (B, N) each of the cell centres in the source image."""
    height, width = shape
    cell_width, cell_height = cell_sizes(boxes, shape)
    columns = torch.arange(width, dtype=boxes.dtype, device=boxes.device).repeat(height)
    rows = torch.arange(height, dtype=boxes.dtype, device=boxes.device).repeat_interleave(width)
    x = (columns + 0.5) * cell_width[:, None] + boxes[:, :1]
    y = (rows + 0.5) * cell_height[:, None] + boxes[:, 1:2]
    return x, y


def cell_distances(boxes_q: Tensor, boxes_k: Tensor, shape: tuple[int, int]) -> Tensor:
    """Distance of all pairs of cell centres in units of the larger cell diagonal of the two views: (B, Nq, Nk).

    Two crops of size zero have no unit: their distances are infinite, or NaN where the places are the same.
    """
    (x_q, y_q), (x_k, y_k) = cell_centres(boxes_q, shape), cell_centres(boxes_k, shape)
    distance = ((x_q[:, :, None] - x_k[:, None]) ** 2 + (y_q[:, :, None] - y_k[:, None]) ** 2).sqrt()
    diagonals = [(width**2 + height**2).sqrt() for width, height in (cell_sizes(b, shape) for b in (boxes_q, boxes_k))]
    return distance / torch.maximum(*diagonals)[:, None, None]


def positive_mask(boxes_q: Tensor, boxes_k: Tensor, shape: tuple[int, int], threshold: float) -> Tensor:
    """True where two cells are nearer than ``threshold`` (Eq. 2): bool (B, Nq, Nk).

    Swapping the views transposes the mask. NaN is not below any threshold, so crops of size zero have no positives.
    """
    return cell_distances(boxes_q, boxes_k, shape) < threshold


def in_intersection(boxes: Tensor, others: Tensor, shape: tuple[int, int]) -> Tensor:
    """True for the cells of ``boxes`` whose centre lies in the same row's box of ``others``, rim included: bool (B, N).

    Such a cell has a cell of the other view within half the larger diagonal, hence a positive for any threshold above
    0.5.
    """
    x, y = cell_centres(boxes, shape)
    inside = torch.ones_like(x, dtype=torch.bool)
    for centres, one, end in ((x, others[:, 0:1], others[:, 2:3]), (y, others[:, 1:2], others[:, 3:4])):
        inside &= (torch.minimum(one, end) <= centres) & (centres <= torch.maximum(one, end))
    return inside
