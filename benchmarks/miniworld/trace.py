"""Convert masks to COCO's polygons (along the pixel edges) or run lengths.

pycocotools converts both back to exactly the same mask.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def polygons(mask: Mask) -> list[list[int]]:
    """Return polygons [x, y, x, y, …] without holes whose union is ``mask`` (H, W); a mask is cut in two at each hole.

    COCO also has several polygons for an object in several pieces. Detectron2's default mask format accepts only
    polygons for single objects; therefore masks with holes do not become run lengths.
    """
    loops = boundary(mask)
    hole = next((loop for loop in loops if signed_area(loop) < 0), None)
    if hole is None:
        return [loop.ravel().tolist() for loop in loops]
    cut = int(hole[:, 0].min() + hole[:, 0].max()) // 2
    left, right = mask.copy(), mask.copy()
    left[:, cut:] = False
    right[:, :cut] = False
    return polygons(left) + polygons(right)


def boundary(mask: Mask) -> list[NDArray[np.int64]]:
    """Return closed loops of corners (n, 2) along the pixel edges.

    On the screen they run clockwise around pixels and anticlockwise around holes. Pixels that touch only at a corner
    are kept apart.
    """
    height, width = mask.shape
    padded = np.zeros((height + 2, width + 2), bool)
    padded[1:-1, 1:-1] = mask
    centre = padded[1:-1, 1:-1]
    # corner -> directions (dx, dy) of the edges that start there
    follow: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for neighbour, offset, direction in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),  # upper edges run right
        (padded[1:-1, 2:], (1, 0), (0, 1)),  # right edges run down
        (padded[2:, 1:-1], (1, 1), (-1, 0)),  # lower edges run left
        (padded[1:-1, :-2], (0, 1), (0, -1)),  # left edges run up
    ):
        for y, x in np.argwhere(centre & ~neighbour).tolist():
            follow.setdefault((x + offset[0], y + offset[1]), []).append(direction)
    loops = []
    while follow:
        start = corner = next(iter(follow))
        heading = (0, 0)
        loop: list[tuple[int, int]] = []
        while corner in follow:
            leaving = follow[corner]
            right_turn = (-heading[1], heading[0])
            direction = right_turn if right_turn in leaving else leaving[0]  # a right turn stays at the same pixel
            leaving.remove(direction)
            if not leaving:
                del follow[corner]
            if direction != heading:
                loop.append(corner)
                heading = direction
            corner = (corner[0] + direction[0], corner[1] + direction[1])
            if corner == start and (-heading[1], heading[0]) not in follow.get(corner, []):
                break
        loops.append(np.array(loop))
    return loops


def signed_area(loop: NDArray[np.int64]) -> float:
    """Return the area inside ``loop`` (n, 2): positive around pixels, negative around holes."""
    x, y = loop.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def run_lengths(mask: Mask) -> dict[str, Any]:
    """Return COCO's uncompressed run lengths: column by column, starting with a run of zeros."""
    flat = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(np.diff(flat)).tolist()
    edges = [0, *changes, mask.size]
    return {"counts": [b - a for a, b in itertools.pairwise(edges)], "size": list(mask.shape)}
