"""Reduced features keep the cosines of the cells of a picture; label maps are those that were scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from given_features import labelled

from transfer.frozen.samples import CELLS, ERROR, NUMBERS, averaged, features, principal_colours, reduced, unit


def decaying(cells: int, channels: int, power: float) -> torch.Tensor:
    """Features whose variances fall with the rank to the ``power``, around a mean, as those of trained networks do."""
    torch.manual_seed(0)
    weights = torch.arange(1, channels + 1) ** -(power / 2)
    return unit(torch.randn(cells, channels) * weights + 0.3 * weights[0])


@pytest.mark.parametrize(("cells", "power"), [(196, 2.0), (1024, 2.5), (1024, 3.0), (49, 1.0)])
def test_cosines_of_reduced_features_are_those_of_the_whole_ones(cells: int, power: float) -> None:
    whole = decaying(cells, 512, power)
    numbers, scale, error = reduced(whole)
    assert numbers.dtype == np.int8
    assert numbers.shape[1] in NUMBERS
    found = numbers.astype(np.float64)
    errors = np.abs(found @ found.T * scale**2 - (whole @ whole.T).double().numpy())
    np.fill_diagonal(errors, 0)
    assert errors.max() == pytest.approx(error)
    assert error <= ERROR


def test_the_smallest_number_that_will_do_is_taken() -> None:
    counts = [reduced(decaying(400, 256, power))[0].shape[1] for power in (6.0, 2.0, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] == NUMBERS[0] < counts[-1]


def test_what_cannot_be_reduced_says_its_error() -> None:
    """Features without any structure: 1024 directions that are all alike."""
    torch.manual_seed(0)
    numbers, _, error = reduced(unit(torch.randn(1024, 1024)))
    assert numbers.shape[1] == NUMBERS[-1]
    assert error > ERROR


def test_few_cells_and_cells_of_zero() -> None:
    numbers, scale, error = reduced(unit(torch.tensor([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0]])))
    assert error <= ERROR
    assert float(numbers[0].astype(int) @ numbers[2]) * scale**2 == pytest.approx(-1, abs=0.01)
    assert not numbers[1].any()


def test_large_maps_are_averaged() -> None:
    assert averaged(torch.ones(64, 128, 3)).shape == (CELLS // 2, CELLS, 3)
    assert averaged(torch.ones(7, 9, 3)).shape == (7, 9, 3)


def test_principal_components_as_colours_do_not_depend_on_a_rotation_of_the_channels() -> None:
    cells = decaying(300, 64, 2.0)
    turned = cells @ torch.linalg.qr(torch.randn(64, 64)).Q
    one, other = (principal_colours(part).double() for part in (cells, turned))
    for channel in range(3):  # the sign is arbitrary then
        both = torch.corrcoef(torch.stack((one[:, channel], other[:, channel])))[0, 1]
        assert abs(both) > 0.99
    assert one.min() == 0
    assert one.max() == 255


def test_features_of_the_pictures_that_are_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(4, 5, 16) for _ in range(8)]
    split = labelled(tmp_path / "pictures", maps, [np.zeros((64, 80))] * 8, "a b", 16)
    found = features(split)
    assert len(found["images"]) == 6
    number = int(found["images"][2])
    assert found["cells_2"].shape[:2] == (4, 5)
    assert found["pca_2"].shape == (4, 5, 3)
    whole, kept = unit(maps[number]).flatten(0, 1), found["cells_2"].reshape(20, -1).astype(np.float64)
    errors = kept @ kept.T * float(found["scale_2"]) ** 2 - (whole @ whole.T).numpy()
    assert np.abs(errors[~np.eye(20, dtype=bool)]).max() == pytest.approx(float(found["error_2"]), abs=1e-6)
    assert found["error_2"] <= ERROR
