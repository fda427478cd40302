"""Find the cells of two feature maps that show the same place of the source image.

Shapes: B batch, (H, W) map of each view, N = H·W cells, cell index y·W + x.
A box (x1, y1, x2, y2) is a crop box in relative coordinates of the source image, x / (width − 1) and y / (height − 1), as in
the official code. Distances and cell diagonals are computed in these coordinates, so a distance is not in pixels if the image
is not square. x1 > x2 means that the view was flipped left to right, y1 > y2 top to bottom. The cells then have a negative
width or height, and the formula for their centres needs no special case. Source: `regression_loss` in
`contrast/models/PixPro.py`; PixPro paper, Eq. 2 and the text around it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cell_sizes(boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the signed cell width and height, (B,) each, of a map of ``shape`` (H, W) over ``boxes`` (B, 4)."""
    height, width = shape
    return (boxes[:, 2] - boxes[:, 0]) / width, (boxes[:, 3] - boxes[:, 1]) / height


def cell_lines(boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the x of the centres of each column, (B, W), and the y of those of each row, (B, H), in the source image."""
    height, width = shape
    cell_width, cell_height = cell_sizes(boxes, shape)
    columns = torch.arange(width, dtype=boxes.dtype, device=boxes.device)
    rows = torch.arange(height, dtype=boxes.dtype, device=boxes.device)
    x = (columns + 0.5) * cell_width[:, None] + boxes[:, :1]
    y = (rows + 0.5) * cell_height[:, None] + boxes[:, 1:2]
    return x, y


def cell_centres(boxes: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return x and y, (B, N) each, of the cell centres in the source image."""
    x, y = cell_lines(boxes, shape)
    return x.repeat(1, shape[0]), y.repeat_interleave(shape[1], 1)


def cell_distances(boxes_q: Tensor, boxes_k: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the distances of all pairs of cell centres: (B, Nq, Nk).

    The unit is the larger cell diagonal of the two views. If both crops have size zero, there is no unit: the distances
    are infinite, or NaN where the two centres are the same.
    """
    (x_q, y_q), (x_k, y_k) = cell_lines(boxes_q, shape), cell_lines(boxes_k, shape)
    # A square of a distance is one of columns and one of rows, so only the sum has the size of all pairs.
    across, down = (x_q[:, :, None] - x_k[:, None]) ** 2, (y_q[:, :, None] - y_k[:, None]) ** 2
    squares = down[:, :, None, :, None] + across[:, None, :, None, :]  # (B, H, W, H, W)
    diagonals = [(width**2 + height**2).sqrt() for width, height in (cell_sizes(b, shape) for b in (boxes_q, boxes_k))]
    unit = torch.maximum(*diagonals)[:, None, None]
    return squares.sqrt_().flatten(3).flatten(1, 2).div_(unit)


def positive_mask(boxes_q: Tensor, boxes_k: Tensor, shape: tuple[int, int], threshold: float) -> Tensor:
    """Return True where two cells are closer than ``threshold`` (Eq. 2): bool (B, Nq, Nk).

    Swapping the views transposes the mask. Infinity and NaN are not below any threshold, so two crops of size zero have
    no positive pairs.
    """
    return cell_distances(boxes_q, boxes_k, shape) < threshold


def in_intersection(boxes: Tensor, others: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return True for the cells of ``boxes`` whose centre lies in the other view's box: bool (B, N).

    Row i of ``boxes`` is compared with row i of ``others``; the border belongs to the box. Such a cell has a cell of
    the other view within half the larger cell diagonal, and therefore a positive pair for any threshold above 0.5.
    """
    x, y = cell_centres(boxes, shape)
    inside = torch.ones_like(x, dtype=torch.bool)
    for centres, one, end in ((x, others[:, 0:1], others[:, 2:3]), (y, others[:, 1:2], others[:, 3:4])):
        inside &= (torch.minimum(one, end) <= centres) & (centres <= torch.maximum(one, end))
    return inside
