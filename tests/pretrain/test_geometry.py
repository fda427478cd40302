"""The positive mask: hand-derived cells, invariances, limit cases, and the official masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.losses.geometry import cell_centres, cell_distances, positive_mask

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "loss.npz")
WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 4, generator=generator, dtype=torch.float64)  # ends in any order: flipped ones among them


@pytest.mark.parametrize("case", GOLDEN["cases"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_and_counts_of_the_official_code(case: str, dtype: torch.dtype) -> None:
    boxes_q, boxes_k = (torch.from_numpy(GOLDEN[f"{case}/coord_{side}"]).to(dtype) for side in "qk")
    height, width = GOLDEN[f"{case}/q"].shape[2:]
    for index, threshold in enumerate(GOLDEN[f"{case}/pos_ratio"]):
        mask = positive_mask(boxes_q, boxes_k, (height, width), float(threshold))
        packed = np.packbits(mask.flatten(1).numpy(), axis=1)
        np.testing.assert_array_equal(packed, GOLDEN[f"{case}/mask_packed"][index])
        np.testing.assert_array_equal(mask.sum((1, 2)), GOLDEN[f"{case}/pos_count"][index])


def test_centres_by_hand() -> None:
    """A map of 1 row and 2 columns over the left half; the same, flipped left-right and top-bottom."""
    boxes = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 0.0, 1.0], [0.5, 1.0, 0.0, 0.0]])
    x, y = cell_centres(boxes, (1, 2))
    assert x.tolist() == [[0.125, 0.375], [0.375, 0.125], [0.375, 0.125]]
    assert y.tolist() == [[0.5, 0.5]] * 3


def test_rows_before_columns() -> None:
    x, y = cell_centres(WHOLE, (2, 4))
    assert x.tolist() == [[0.125, 0.375, 0.625, 0.875] * 2]
    assert y.tolist() == [[0.25] * 4 + [0.75] * 4]


def test_distances_by_hand() -> None:
    """2 × 2 cells of 0.5 × 0.5 have a diagonal of √0.5: neighbours lie 0.5 / √0.5 = √0.5 apart, opposite ones 1."""
    near = 0.5**0.5
    expected = [[0, near, near, 1], [near, 0, 1, near], [near, 1, 0, near], [1, near, near, 0]]
    torch.testing.assert_close(cell_distances(WHOLE, WHOLE, (2, 2))[0], torch.tensor(expected, dtype=torch.float64))
    assert positive_mask(WHOLE, WHOLE, (2, 2), 0.7)[0].equal(torch.eye(4, dtype=torch.bool))
    assert positive_mask(WHOLE, WHOLE, (2, 2), 0.71)[0].sum() == 12


def test_the_larger_diagonal_is_the_unit() -> None:
    """The top left quarter against the whole, one cell each: centres √2/4 apart, the larger diagonal is √2."""
    quarter = torch.tensor([[0.0, 0.0, 0.5, 0.5]], dtype=torch.float64)
    assert cell_distances(quarter, WHOLE, (1, 1)).item() == pytest.approx(0.25)
    assert cell_distances(WHOLE, quarter, (1, 1)).item() == pytest.approx(0.25)


@pytest.mark.parametrize("shape", [(7, 7), (3, 5), (5, 2), (1, 1)])
def test_swapping_the_views_transposes_exactly(shape: tuple[int, int]) -> None:
    boxes_q, boxes_k = random_boxes(16, 0).float(), random_boxes(16, 1).float()
    assert cell_distances(boxes_q, boxes_k, shape).equal(cell_distances(boxes_k, boxes_q, shape).transpose(1, 2))


@pytest.mark.parametrize("shape", [(4, 4), (3, 5)])
@pytest.mark.parametrize(("axis", "order"), [(2, [0, 3, 2, 1]), (3, [2, 1, 0, 3])])
def test_flipping_a_view_moves_its_cells_and_changes_no_pair(
    shape: tuple[int, int], axis: int, order: list[int]
) -> None:
    """Flipping the query map together with its box gives the mask of the same cells. axis 2: top-bottom, 3: left-right."""
    boxes_q, boxes_k = random_boxes(32, 2), random_boxes(32, 3)
    plain = cell_distances(boxes_q, boxes_k, shape).unflatten(1, shape)
    flipped = cell_distances(boxes_q[:, order], boxes_k, shape).unflatten(1, shape)
    torch.testing.assert_close(flipped, plain.flip(axis - 1), rtol=1e-9, atol=1e-12)


def test_scaling_and_shifting_both_boxes_changes_nothing() -> None:
    boxes_q, boxes_k = random_boxes(32, 4), random_boxes(32, 5)
    plain = cell_distances(boxes_q, boxes_k, (4, 6))
    torch.testing.assert_close(cell_distances(3 * boxes_q + 1, 3 * boxes_k + 1, (4, 6)), plain, rtol=1e-9, atol=1e-12)


def test_everything_is_positive_above_the_largest_distance() -> None:
    assert positive_mask(WHOLE, WHOLE, (3, 3), 3.0).all()


def test_crops_of_size_zero_have_no_positives() -> None:
    """0/0 and x/0 are not below any threshold; one empty crop beside a real one keeps the real one's unit."""
    point, elsewhere = torch.tensor([[0.5, 0.5, 0.5, 0.5]]), torch.tensor([[0.2, 0.5, 0.2, 0.5]])
    assert not positive_mask(point, point, (2, 2), 0.7).any()
    assert not positive_mask(point, elsewhere, (2, 2), 0.7).any()
    assert positive_mask(point, WHOLE.float(), (3, 3), 0.1)[0].sum(0).tolist() == [0, 0, 0, 0, 9, 0, 0, 0, 0]
