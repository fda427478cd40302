"""The pixels near the boundaries of a label map: there a segmentation shows how exactly it knows where things are.

Shapes: H × W pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from transfer.datasets.mask_numbers import IGNORED

SHARE = 0.02
"""Width of the band on each side of a boundary, as a share of the picture's diagonal: that of Boundary IoU (Cheng et al., arXiv
2103.16562). Here all classes are compared in one band, as in a trimap (Kohli et al., IJCV 2009)."""


def near_boundaries(labels: np.ndarray, ignored: int = IGNORED) -> np.ndarray:
    """Return ``labels`` (H, W) with ``ignored`` wherever no pixel of another class is near.

    Near are pixels whose centres are less far than `SHARE` of the diagonal, and always neighbours. Ignored pixels are of no
    class: where a class meets them is no boundary.
    """
    edge = np.zeros(labels.shape, bool)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (labels[here] != labels[there]) & (labels[here] != ignored) & (labels[there] != ignored)
        edge[here] |= differ
        edge[there] |= differ
    if not edge.any():
        return np.full_like(labels, ignored)
    # a pixel on the edge is one pixel away from the other class
    distance = 1 + cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(distance <= max(1.0, SHARE * math.hypot(*labels.shape)), labels, ignored).astype(labels.dtype)
