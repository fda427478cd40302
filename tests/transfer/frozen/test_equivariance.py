"""Parts of pictures, the places of their cells, and what equivariance says of features that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from given_features import labelled, other
from PIL import Image

from pretrain.models.backbone_spec import BackboneSpec
from transfer.frozen import cache
from transfer.frozen.equivariance import centres, cosines, sampled
from transfer.frozen.method import Split
from transfer.frozen.network import FrozenNetwork
from transfer.frozen.parts import Parts
from transfer.frozen.scenes import Scenes
from transfer.frozen.views import Images, Views
from transfer.initial_weights import random_backbone

LABELS = [np.zeros((64, 96), np.uint8), np.zeros((64, 64), np.uint8), np.zeros((96, 64), np.uint8)]


def picture(folder: Path) -> Scenes:
    path = folder / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return Scenes("test", (path,), (path,))


def pointwise(split: Split, channels: int = 5) -> list[np.ndarray]:
    """Return what a network without context makes of pictures whose colours are the place: linear features of it."""
    weight = np.random.default_rng(3).normal(size=(2, channels))
    maps = []
    for index, (height, width) in enumerate(split.features.shapes):
        places = centres(split, index)
        if isinstance(split.views, Parts):
            places = split.views.places(index, places)
        maps.append((places @ weight + 1).reshape(height, width, channels))
    return maps


def views_of(tmp_path: Path, low: float, high: float, flip: bool) -> tuple[Split, Split]:
    shapes = [(label.shape[0] // 8, label.shape[1] // 8) for label in LABELS]
    empty = [np.zeros((*shape, 5)) for shape in shapes]
    whole = labelled(tmp_path / "data", empty, LABELS, "a b", 8)
    part = other(whole, empty, Parts(whole.views.pictures, whole.views.images, low, high, flip, seed=4))
    return other(whole, pointwise(whole), whole.views), other(part, pointwise(part), part.views)


def test_a_whole_part_is_the_picture_and_a_mirror_image_is_mirrored(tmp_path: Path) -> None:
    scenes = picture(tmp_path)
    for images in (
        Images(resize="native"),
        Images(size=32),
        Images(size=32, resize="shorter", interpolation="bicubic"),
    ):
        plain = Views(scenes, images)[0]
        assert Parts(scenes, images)[0].equal(plain)
        assert Parts(scenes, images, flip=True)[0].float() == pytest.approx(plain.flip(2).float(), abs=1)


def test_parts_lie_in_the_picture_and_follow_the_seed(tmp_path: Path) -> None:
    scenes = picture(tmp_path)
    for seed in range(50):
        parts = Parts(scenes, Images(size=32), 0.5, 0.8, seed=seed)
        x1, y1, x2, y2 = parts.box(0)
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1
        assert 0.5 <= x2 - x1 <= 0.8
        assert x2 - x1 == pytest.approx(y2 - y1)
        assert parts.box(0) == Parts(scenes, Images(size=32), 0.5, 0.8, seed=seed).box(0)
    assert parts.box(0) != parts.box(1) != replace(parts, seed=50).box(1)
    assert parts[0].shape == (3, 32, 32)


def test_a_part_shows_its_pixels(tmp_path: Path) -> None:
    scenes = picture(tmp_path)
    parts = Parts(scenes, Images(resize="native"), 0.5, 0.5, seed=2)
    x1, y1, x2, y2 = (at * side for at, side in zip(parts.box(0), (64, 48, 64, 48), strict=True))
    expected = scenes.picture(0).resize((64, 48), Image.Resampling.BILINEAR, box=(x1, y1, x2, y2))
    assert np.array_equal(parts[0].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_places_by_hand(tmp_path: Path) -> None:
    corners = np.array([[0.0, 0.0], [1.0, 1.0], [0.25, 0.5]])
    whole = Parts(picture(tmp_path), Images())
    assert whole.places(0, corners).tolist() == corners.tolist()
    assert replace(whole, flip=True).places(0, corners).tolist() == [[1, 0], [0, 1], [0.75, 0.5]]
    part = replace(whole, low=0.5, high=0.5, seed=1)
    x1, y1, x2, y2 = part.box(0)
    assert part.places(0, corners) == pytest.approx(np.array([[x1, y1], [x2, y2], [x1 + 0.125, (y1 + y2) / 2]]))


def test_the_cache_tells_views_apart(tmp_path: Path) -> None:
    scenes, images = picture(tmp_path), Images(size=32)
    network = FrozenNetwork(random_backbone(BackboneSpec(depth=18, width=0.125), 0))
    views = [Views(scenes, images), *(Parts(scenes, images, 0.5, 0.8, seed=seed) for seed in (0, 1))]
    views.append(Parts(scenes, images, flip=True))
    assert len({cache.key(network, some) for some in views}) == 4
    assert cache.key(network, views[1]) == cache.key(network, Parts(scenes, images, 0.5, 0.8, seed=0))


def test_interpolation_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    values, points = rng.normal(size=(4, 6, 3)), rng.random((20, 2)) * (5, 3)
    expected = []
    for x, y in points:
        left, top = min(int(x), 4), min(int(y), 2)
        right, low = x - left, y - top
        upper = (1 - right) * values[top, left] + right * values[top, left + 1]
        lower = (1 - right) * values[top + 1, left] + right * values[top + 1, left + 1]
        expected.append((1 - low) * upper + low * lower)
    found = sampled(torch.from_numpy(values), torch.from_numpy(points))
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-9)


@pytest.mark.parametrize(("low", "high", "flip"), [(0.5, 0.8, False), (1, 1, True), (0.4, 0.9, True)])
def test_a_pointwise_network_is_equivariant(tmp_path: Path, low: float, high: float, flip: bool) -> None:
    whole, part = views_of(tmp_path, low, high, flip)
    found = cosines(whole, part, 1000, seed=0)
    assert len(found.same) > 100
    assert found.same == pytest.approx(1, abs=1e-9)
    assert found.other.mean() < 0.99


def test_independent_features_are_not_equivariant(tmp_path: Path) -> None:
    whole, part = views_of(tmp_path, 0.5, 0.8, False)
    rng = np.random.default_rng(5)
    whole, part = (
        other(some, [rng.normal(size=(*shape, 64)) for shape in some.features.shapes], some.views)
        for some in (whole, part)
    )
    found = cosines(whole, part, 1000, seed=0)
    assert found.same.mean() - found.other.mean() == pytest.approx(0, abs=4 * np.sqrt(2 / 64 / len(found.same)))


def test_pairs_are_bounded_spread_and_follow_the_seed(tmp_path: Path) -> None:
    whole, part = views_of(tmp_path, 0.5, 0.8, False)
    assert len(cosines(whole, part, 30, seed=0).same) == 30
    assert len(cosines(whole, part, 17, seed=0).same) == 16  # two pictures of eight pairs
    assert np.array_equal(cosines(whole, part, 30, 1).other, cosines(whole, part, 30, 1).other)
    assert not np.array_equal(cosines(whole, part, 30, 1).other, cosines(whole, part, 30, 2).other)


def test_a_map_of_one_cell_has_no_pairs(tmp_path: Path) -> None:
    one = [np.ones((1, 1, 3))]
    whole = labelled(tmp_path / "data", one, [np.zeros((8, 8))], "a", 8)
    found = cosines(whole, other(whole, one, Parts(whole.views.pictures, whole.views.images, 0.5, 0.8)), 10, 0)
    assert len(found.same) == len(found.other) == 0
