"""Crops and boxes against the official code's recordings (tests/golden/README.md, coords.npz)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.data.pil import cut
from pretrain.data.views import Crop, box_of, fallback_crop, random_crop, random_flip

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "coords.npz")
COLUMNS = ["i", "j", "h", "w", "height", "width", "hflip", "vflip"]


UPRIGHT = np.flatnonzero(GOLDEN["params"][:, COLUMNS.index("vflip")] == 0).tolist()  # nothing here turns upside down


def recorded(row: int) -> tuple[Crop, int, int]:
    values = dict(zip(COLUMNS, GOLDEN["params"][row].tolist(), strict=True))
    crop = Crop(values["i"], values["j"], values["h"], values["w"], bool(values["hflip"]))
    return crop, values["width"], values["height"]


def test_boxes_equal_the_recorded_ones() -> None:
    assert GOLDEN["columns"].tolist() == COLUMNS
    boxes = [box_of(*recorded(row)) for row in UPRIGHT]
    np.testing.assert_array_equal(np.array(boxes, dtype=np.float32), GOLDEN["coord"][UPRIGHT])


def test_fallback_crops_equal_the_recorded_ones() -> None:
    for width, height, i, j, h, w in GOLDEN["fallback"].tolist():
        assert fallback_crop(width, height) == Crop(i, j, h, w)
        assert random_crop(random.Random(0), width, height, (4.0, 5.0)) == Crop(i, j, h, w)


@pytest.mark.parametrize(
    "name", [name for name in GOLDEN if name.endswith("/image") and int(name.split("/")[1]) in UPRIGHT]
)
def test_pixels_within_a_grey_level(name: str) -> None:
    crop, width, height = recorded(int(name.split("/")[1]))
    image = Image.fromarray(GOLDEN[name])
    assert image.size == (width, height)
    difference = np.asarray(cut(image, crop, 16), dtype=int) - GOLDEN[name.replace("image", "crop16")]
    assert np.abs(difference).max() <= 1


def test_crops_are_distributed_as_recorded() -> None:
    rng = random.Random(5)
    ours = np.array([random_crop(rng, 500, 375, (0.08, 1.0))[:4] for _ in range(4000)], dtype=float)
    theirs = GOLDEN["sample_500x375"].astype(float)
    for column in range(4):  # two-sample Kolmogorov–Smirnov, 1 % critical value of n = m = 4000
        grid = np.unique(np.concatenate([ours[:, column], theirs[:, column]]))
        below = [np.searchsorted(np.sort(sample[:, column]), grid, side="right") / 4000 for sample in (ours, theirs)]
        assert np.abs(below[0] - below[1]).max() < 1.63 * (2 / 4000) ** 0.5
    areas = [sample[:, 2] * sample[:, 3] / (500 * 375) for sample in (ours, theirs)]
    assert areas[0].min() > 0.079
    assert abs(areas[0].mean() - areas[1].mean()) < 0.02


def test_flips_swap_the_ends() -> None:
    crop = Crop(2, 3, 10, 20)
    x1, y1, x2, y2 = box_of(crop, 41, 31)
    assert (x1, y1, x2, y2) == (3 / 40, 2 / 30, 22 / 40, 11 / 30)
    assert box_of(crop._replace(flipped=True), 41, 31) == (x2, y1, x1, y2)
    rng = random.Random(1)
    flips = [random_flip(rng, crop) for _ in range(2000)]
    assert 900 < sum(flip.flipped for flip in flips) < 1100
    assert random_flip(rng, crop, 0.0) == crop


def test_flips_turn_the_pixels() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    plain = np.asarray(cut(image, Crop(2, 2, 8, 8), 8))
    np.testing.assert_array_equal(np.asarray(cut(image, Crop(2, 2, 8, 8, flipped=True), 8)), plain[:, ::-1])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_tiny_images_have_boxes(width: int, height: int) -> None:
    crop = random_crop(random.Random(0), width, height, (0.08, 1.0))
    assert all(0.0 <= end <= 1.0 for end in box_of(crop, width, height))
    assert cut(Image.new("RGB", (width, height)), crop, 4).size == (4, 4)
