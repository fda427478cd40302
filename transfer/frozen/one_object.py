"""Find one object in a picture from the affinities of its cells: LOST and TokenCut.

Siméoni et al., "Localizing Objects with Self-Supervised Transformers and no Labels", arXiv 2109.14279; Wang et al.,
"Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut", arXiv 2202.11539.

Shapes: a map of h × w cells, n = h · w in reading order, C channels. A mask (h, w) is True on the cells of the object.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, ndimage
from torch import Tensor

LAYER_NORM_EPS = 1e-5


def layer_norm(cells: Tensor) -> Tensor:
    """Return ``cells`` (n, C) minus the mean of all n · C values, divided by their standard deviation.

    LOST does this with the map of a convolutional network (`main_lost.py`: one layer norm over the whole map). Without it, the
    values after a ReLU are all positive and every cell resembles every other.
    """
    values = cells - cells.mean()
    return values / (values.square().mean() + LAYER_NORM_EPS).sqrt()


def affinity(cells: Tensor) -> np.ndarray:
    """Return the inner products (n, n) of all pairs of ``cells`` (n, C)."""
    return (cells @ cells.T).cpu().numpy()


def lost(products: np.ndarray, shape: tuple[int, int], k_patches: int) -> np.ndarray | None:
    """Return the mask that LOST finds, or None if the features of the seed are 0.

    The seed is the cell with a positive inner product with the fewest others; of equal ones the first, where the public code
    leaves the choice to `torch.argsort`. It is expanded by those of the ``k_patches`` cells of lowest degree that are similar to
    it. The object is the connected part, around the seed, of the cells with a positive sum of inner products with them.
    """
    positive = products > 0
    degree = positive.sum(1) - positive.diagonal()
    order = np.argsort(degree, kind="stable")
    seed, candidates = order[0], order[:k_patches]
    similar = candidates[positive[seed, candidates]]
    return connected((products[similar].sum(0) > 0).reshape(shape), seed)


def token_cut(products: np.ndarray, shape: tuple[int, int], tau: float, eps: float) -> np.ndarray | None:
    """Return the mask that TokenCut finds, or None if no cut is better than another: all pairs are similar, or none is.

    The graph has weight 1 between cells with a cosine above ``tau`` and ``eps`` between others. Its normalised cut is the
    second smallest eigenvector of (D - A) v = λ D v, divided at its mean. The object is the connected part, around the cell
    with the largest absolute value, of the cells on that cell's side.
    """
    edges = similar(products, tau)
    others = edges[~np.eye(len(edges), dtype=bool)]
    if others.all() or not others.any():
        return None
    vector = second_eigenvector(np.where(edges, 1.0, eps))
    seed = int(np.abs(vector).argmax())
    side = vector > vector.mean()
    return connected((side == side[seed]).reshape(shape), seed)


def similar(products: np.ndarray, tau: float) -> np.ndarray:
    """Return whether the cosines (n, n) are above ``tau``; a cell without length has cosine 0 with all."""
    length = np.sqrt(products.diagonal())
    both = np.outer(length, length)
    return np.asarray(np.divide(products, both, out=np.zeros_like(products), where=both > 0) > tau)


def second_eigenvector(weights: np.ndarray) -> np.ndarray:
    """Return the second smallest v (n,) of (D - A) v = λ D v for symmetric ``weights`` A (n, n); its sign is not defined."""
    root = np.sqrt(weights.sum(1))
    normalised = weights / np.outer(root, root)  # the largest eigenvalues of this are the smallest λ
    place = len(weights) - 2
    _, vectors = linalg.eigh(normalised, subset_by_index=[place, place], overwrite_a=True, check_finite=False)
    return np.asarray(vectors[:, 0] / root)


def connected(mask: np.ndarray, seed: int) -> np.ndarray | None:
    """Return the part of ``mask`` (h, w) that is connected with cell ``seed`` over sides; None if the seed is not in it."""
    parts, _ = ndimage.label(mask)
    part = parts.flat[seed]
    return parts == part if part else None


def box_of(mask: np.ndarray | None, stride: int, shape: tuple[int, int]) -> np.ndarray | None:
    """Return the box (x1, y1, x2, y2) in pixels around ``mask``, within an input of ``shape`` (H, W)."""
    if mask is None:
        return None
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64) * stride
    return np.minimum(box, [*shape[::-1]] * 2)


def overlaps(box: np.ndarray | None, boxes: np.ndarray) -> np.ndarray:
    """Return the IoU (n,) of ``box`` (4,) with ``boxes`` (n, 4); 0 without a box."""
    if box is None:
        return np.zeros(len(boxes))
    corners = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.prod(np.clip(corners, 0, None), 1)
    area, areas = np.prod(box[2:] - box[:2]), np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    return np.asarray(common / (area + areas - common))
