"""LOST and TokenCut by hand, against plain references and against what the public code found (tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg

from transfer.frozen.one_object import (
    affinity,
    box_of,
    layer_norm,
    lost,
    overlaps,
    second_eigenvector,
    similar,
    token_cut,
)

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "discovery.npz")
THREE = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.1]], dtype=torch.float64)
"""Three patches: the first two resemble each other, the third resembles none."""


def blobs(seed: int, height: int, width: int, channels: int = 16) -> torch.Tensor:
    """Return cells (n, C) of a few smooth regions with noise."""
    rng = np.random.default_rng(seed)
    centres = rng.random((4, 2)) * (height, width)
    place = np.stack(np.mgrid[:height, :width], -1).reshape(-1, 1, 2)
    region = ((place - centres) ** 2).sum(2).argmin(1)
    return torch.from_numpy(rng.normal(size=(4, channels))[region] + rng.normal(size=(len(region), channels)))


def component(mask: list[list[bool]], seed: tuple[int, int]) -> set[tuple[int, int]]:
    """Flood a mask from a cell, over sides."""
    found, todo = set(), [seed]
    while todo:
        y, x = todo.pop()
        if 0 <= y < len(mask) and 0 <= x < len(mask[0]) and mask[y][x] and (y, x) not in found:
            found.add((y, x))
            todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return found


def plain_lost(cells: np.ndarray, height: int, width: int, most: int) -> set[tuple[int, int]]:
    """Follow Section 3.2 of the paper with loops."""
    count = len(cells)
    products = [[float(cells[p] @ cells[q]) for q in range(count)] for p in range(count)]
    degree = [sum(products[p][q] > 0 for q in range(count) if q != p) for p in range(count)]
    ranked = sorted(range(count), key=lambda p: (degree[p], p))
    seed = ranked[0]
    expanded = [q for q in ranked[:most] if products[seed][q] > 0]
    kept = [sum(products[s][q] for s in expanded) > 0 for q in range(count)]
    return component([kept[row * width : (row + 1) * width] for row in range(height)], divmod(seed, width))


def test_lost_by_hand() -> None:
    # degrees 1, 1, 0: the third is the seed, and nothing resembles it
    assert lost(affinity(THREE), (1, 3), 100).tolist() == [[False, False, True]]  # type: ignore[union-attr]


def test_token_cut_by_hand() -> None:
    # cosines 0.6, below 0, below 0: one edge; the single cell has the largest value of the eigenvector
    assert similar(affinity(THREE), 0.2).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    assert token_cut(affinity(THREE), (1, 3), 0.2, 1e-5).tolist() == [[False, False, True]]  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("height", "width", "most"), [(3, 5, 100), (7, 4, 5), (9, 9, 20)])
def test_lost_is_what_loops_give(seed: int, height: int, width: int, most: int) -> None:
    cells = layer_norm(blobs(seed, height, width))
    found = lost(affinity(cells), (height, width), most)
    assert found is not None
    assert set(map(tuple, np.argwhere(found))) == plain_lost(cells.numpy(), height, width, most)


@pytest.mark.parametrize("seed", range(6))
def test_the_cut_solves_the_generalised_problem(seed: int) -> None:
    cells = blobs(seed, 6, 7)
    weights = np.where(similar(affinity(cells), 0.2), 1.0, 1e-5)
    degrees = np.diag(weights.sum(1))
    values, vectors = linalg.eigh(degrees - weights, degrees)
    found = second_eigenvector(weights)
    assert found @ degrees @ found == pytest.approx(1, abs=1e-9)
    assert (degrees - weights) @ found == pytest.approx(values[1] * degrees @ found, abs=1e-9)
    found = found * np.sign(found @ vectors[:, 1])
    assert found == pytest.approx(vectors[:, 1], abs=1e-9)
    side = vectors[:, 1] > vectors[:, 1].mean()
    start = int(np.abs(vectors[:, 1]).argmax())
    expected = component((side == side[start]).reshape(6, 7).tolist(), divmod(start, 7))
    mask = token_cut(affinity(cells), (6, 7), 0.2, 1e-5)
    assert mask is not None
    assert set(map(tuple, np.argwhere(mask))) == expected


@pytest.mark.parametrize("case", range(6))
def test_the_public_code_finds_the_same_boxes(case: int) -> None:
    cells = torch.from_numpy(GOLDEN[f"{case}/cells"])
    shape, size = tuple(cells.shape[:2]), tuple(GOLDEN[f"{case}/size"].tolist())
    flat = layer_norm(cells.flatten(0, 1))
    assert flat.numpy() == pytest.approx(GOLDEN[f"{case}/normalised"], abs=1e-5)
    products = affinity(flat)
    assert box_of(lost(products, shape, 20), 16, size) == pytest.approx(GOLDEN[f"{case}/lost"])
    assert box_of(token_cut(products, shape, 0.2, 1e-5), 16, size) == pytest.approx(GOLDEN[f"{case}/tokencut"])
    vector, recorded = second_eigenvector(np.where(similar(products, 0.2), 1, 1e-5)), GOLDEN[f"{case}/eigenvector"]
    assert vector * np.sign(vector @ recorded) == pytest.approx(recorded, abs=1e-6)


def test_a_rotation_and_a_scale_of_the_features_change_nothing() -> None:
    cells = blobs(3, 8, 8)
    turn = torch.from_numpy(linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0])
    for other in (cells @ turn, 7 * cells):
        for find in (
            lambda products: lost(products, (8, 8), 30),
            lambda products: token_cut(products, (8, 8), 0.2, 1e-5),
        ):
            assert np.array_equal(find(affinity(cells)), find(affinity(other)))


def test_labels_as_features_give_the_object() -> None:
    mask = np.zeros((8, 10), dtype=bool)
    mask[2:5, 3:7] = True
    cells = torch.from_numpy(np.stack([mask, ~mask], -1).reshape(-1, 2)).double()
    for products in (affinity(cells), affinity(layer_norm(cells))):
        assert np.array_equal(lost(products, (8, 10), 100), mask)
        assert np.array_equal(token_cut(products, (8, 10), 0.2, 1e-5), mask)


def test_cells_without_features_or_differences() -> None:
    nothing, equal = torch.zeros(6, 4), torch.tensor([[1.0, 2.0, 0.0]]).expand(6, 3)
    assert lost(affinity(layer_norm(nothing)), (2, 3), 100) is None
    assert token_cut(affinity(layer_norm(nothing)), (2, 3), 0.2, 1e-5) is None
    assert lost(affinity(layer_norm(equal)), (2, 3), 100).all()  # type: ignore[union-attr]
    assert token_cut(affinity(layer_norm(equal)), (2, 3), 0.2, 1e-5) is None
    assert lost(affinity(torch.ones(1, 3)), (1, 1), 100).all()  # type: ignore[union-attr]
    assert token_cut(affinity(torch.ones(1, 3)), (1, 1), 0.2, 1e-5) is None


def test_a_box_ends_with_the_input() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2:], mask[2, 3] = True, True
    assert box_of(mask, 16, (40, 50)).tolist() == [32, 16, 50, 40]  # type: ignore[union-attr]
    assert box_of(None, 16, (40, 50)) is None


def test_overlaps_by_hand() -> None:
    boxes = np.array([[0, 0, 4, 2], [0, 0, 4, 4], [4, 0, 8, 4], [2, 2, 6, 6]], dtype=np.float64)
    assert overlaps(np.array([0.0, 0, 4, 4]), boxes).tolist() == [0.5, 1, 0, 4 / 28]
    assert overlaps(None, boxes).tolist() == [0, 0, 0, 0]
