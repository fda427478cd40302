from __future__ import annotations

import random
from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageOps

from pretrain.data.augment import RECIPES, Photometric, Recipe
from pretrain.data.pil import change
from pretrain.settings import DataConfig

_COARSE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8))
IMAGE = _COARSE.resize((32, 32), Image.Resampling.BICUBIC)
NOTHING = {"jitter": 0.0, "grey": 0.0, "blur": 0.0, "solarise": 0.0}


def only(**probability: float) -> Photometric:
    return Photometric(0.4, 0.4, 0.2, 0.1, **{**NOTHING, **probability})


def changed(photometric: Photometric, image: Image.Image, rng: random.Random) -> np.ndarray:
    return pixels(change(image, photometric.draw(rng)))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=int)


def test_published_values() -> None:
    """BYOL's two views differ, and so do those of CDS; MoCo's and SimCLR's are alike."""
    first, second = RECIPES["byol"]
    assert first == Photometric(0.4, 0.4, 0.2, 0.1, jitter=0.8, grey=0.2, blur=1.0, solarise=0.0)
    assert second == Photometric(0.4, 0.4, 0.2, 0.1, jitter=0.8, grey=0.2, blur=0.1, solarise=0.2)
    assert RECIPES["moco_v2"] == (Photometric(0.4, 0.4, 0.4, 0.1, jitter=0.8, grey=0.2, blur=0.5, solarise=0.0),) * 2
    assert RECIPES["moco_v1"] == (Photometric(0.4, 0.4, 0.4, 0.4, jitter=1.0, grey=0.2, blur=0.0, solarise=0.0),) * 2
    first, second = RECIPES["cds"]
    assert (first, first) == RECIPES["plain"]
    assert second == Photometric(0.4, 0.4, 0.4, 0.1, jitter=0.8, grey=0.2, blur=0.0, solarise=0.0)
    assert RECIPES["simclr"] == (Photometric(0.8, 0.8, 0.8, 0.2, jitter=0.8, grey=0.2, blur=0.5, solarise=0.0),) * 2


def test_plain_leaves_the_view_alone() -> None:
    rng = random.Random(0)
    for _ in range(20):
        np.testing.assert_array_equal(changed(RECIPES["plain"][0], IMAGE, rng), pixels(IMAGE))


def test_each_step_does_its_thing() -> None:
    rng = random.Random(0)
    np.testing.assert_array_equal(changed(only(), IMAGE, rng), pixels(IMAGE))
    grey = changed(only(grey=1.0), IMAGE, rng)
    assert (grey == grey[..., :1]).all()
    np.testing.assert_array_equal(changed(only(solarise=1.0), IMAGE, rng), pixels(ImageOps.solarize(IMAGE, 128)))
    blurred = changed(only(blur=1.0), IMAGE, rng)
    assert np.abs(np.diff(blurred, axis=0)).mean() < np.abs(np.diff(pixels(IMAGE), axis=0)).mean()
    assert (changed(only(jitter=1.0), IMAGE, rng) != pixels(IMAGE)).any()


def test_jitter_stays_in_its_range() -> None:
    """A mid-grey image changes under brightness alone, and by no more than its strength."""
    grey = Image.new("RGB", (8, 8), (100, 100, 100))
    rng = random.Random(0)
    jitter = Photometric(0.4, 0.0, 0.0, 0.0, **{**NOTHING, "jitter": 1.0})
    values = [changed(jitter, grey, rng)[0, 0, 0] for _ in range(500)]
    assert 59 <= min(values) < 65
    assert 135 < max(values) <= 141


@pytest.mark.parametrize("step", list(NOTHING))
def test_probabilities(step: str) -> None:
    rng = random.Random(2)
    photometric = only(**{step: 0.3})
    count = sum((changed(photometric, IMAGE, rng) != pixels(IMAGE)).any() for _ in range(400))
    assert 85 < count < 155  # 120 ± 3.8 σ


def test_the_generator_alone_decides() -> None:
    for photometric in RECIPES["byol"]:
        random.seed(1)
        first = changed(photometric, IMAGE, random.Random(7))
        random.seed(2)
        np.testing.assert_array_equal(changed(photometric, IMAGE, random.Random(7)), first)


def test_every_recipe_has_a_name_and_a_line_in_the_settings() -> None:
    assert list(RECIPES) == list(get_args(Recipe))
    assert all(f'"{name}"' in str(DataConfig.__doc__) for name in RECIPES)
