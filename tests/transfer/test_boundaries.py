"""The band along the boundaries of a label map."""

from __future__ import annotations

import numpy as np
import pytest

from transfer.boundaries import SHARE, near_boundaries
from transfer.datasets.mask_numbers import IGNORED


def by_hand(labels: np.ndarray) -> np.ndarray:
    """The definition word by word: is a pixel of another class near?"""
    rows, columns = np.indices(labels.shape)
    width = SHARE * np.hypot(*labels.shape)
    found = np.full_like(labels, IGNORED)
    for (row, column), label in np.ndenumerate(labels):
        other = (labels != label) & (labels != IGNORED)
        distance = np.hypot(rows - row, columns - column)[other]
        if label != IGNORED and distance.size and distance.min() <= max(1.0, width):
            found[row, column] = label
    return found


@pytest.mark.parametrize("side", [12, 60])
def test_straight_boundaries_are_as_defined(side: int) -> None:
    labels = np.zeros((side, side + 8), np.uint8)
    labels[:, side // 2 :] = 3
    labels[: side // 3] = 7
    found = near_boundaries(labels)
    assert found.dtype == np.uint8
    assert np.array_equal(found != IGNORED, by_hand(labels) != IGNORED)
    assert set(np.unique(found)) == {0, 3, 7, IGNORED}


def test_a_slanted_boundary_is_as_defined_within_a_pixel() -> None:
    rows, columns = np.indices((90, 120))
    labels = (rows * 2 + columns > 155).astype(np.uint8)
    near, exact = (found(labels) != IGNORED for found in (near_boundaries, by_hand))
    assert near.sum() == pytest.approx(exact.sum(), rel=0.15)


def test_ignored_pixels_make_no_boundary_and_are_not_near_one() -> None:
    labels = np.full((40, 40), 2, np.uint8)
    labels[10:20, 10:20] = IGNORED
    assert (near_boundaries(labels) == IGNORED).all()
    labels[30:] = 1
    found = near_boundaries(labels)
    assert (found[labels == IGNORED] == IGNORED).all()
    assert found[29, 5] == 2
    assert found[30, 5] == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_small_maps(shape: tuple[int, int]) -> None:
    labels = np.zeros(shape, np.uint8)
    assert (near_boundaries(labels) == IGNORED).all()
    labels.flat[-1] = 1
    assert (near_boundaries(labels) != IGNORED).sum() == min(2, labels.size) * (labels.size > 1)
