"""The fast ways to change the colours of a view, against Pillow: operation by operation, and as whole recipes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from pretrain.data import opencv, pil
from pretrain.data.augment import MEAN, RECIPES, STD, Changes
from pretrain.data.batched import change, normalised, packed
from pretrain.data.views import Crop, draw_views

LIMIT = 2.0
"""Largest mean absolute difference from Pillow, of 255."""
Change = Callable[[np.ndarray, Changes], np.ndarray]


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Fields of colour with soft borders, fine grain, and patches of pure black and white."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    image = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    image[: height // 8, : width // 8], image[-height // 8 :, -width // 8 :] = 0, 255
    return image


def on_tensors(view: np.ndarray, changes: Changes) -> np.ndarray:
    """What the GPU does, on the CPU: the same code on tensors."""
    images = torch.from_numpy(view.copy()).permute(2, 0, 1)[None]
    return change(images, packed([changes]))[0].permute(1, 2, 0).numpy()


BACKENDS: dict[str, Change] = {"opencv": opencv.change, "batched": on_tensors}
OPERATIONS = {
    **{f"brightness {x}": Changes(jitter=(("brightness", x),)) for x in (0.2, 0.6, 1.0, 1.4, 1.8)},
    **{f"contrast {x}": Changes(jitter=(("contrast", x),)) for x in (0.2, 0.6, 1.0, 1.4, 1.8)},
    **{f"saturation {x}": Changes(jitter=(("saturation", x),)) for x in (0.2, 0.8, 1.0, 1.2, 1.8)},
    **{f"hue {x}": Changes(jitter=(("hue", x),)) for x in (-0.4, -0.1, 0.0, 0.07, 0.2)},
    "grey": Changes(grey=True),
    **{f"blur {x}": Changes(blur=x) for x in (0.1, 0.5, 1.0, 1.6, 2.0)},
    "solarise": Changes(solarise=True),
    "nothing": Changes(),
}


def pillow(view: np.ndarray, changes: Changes) -> np.ndarray:
    return np.asarray(pil.change(Image.fromarray(view), changes))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def padded(changes: Changes) -> Changes:
    """Jitter of one kind as a row of four, the others without an effect."""
    if not changes.jitter:
        return changes
    still = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0} | dict(changes.jitter)
    return changes._replace(jitter=tuple(still.items()))  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_that_of_pillow(backend: str, name: str) -> None:
    view, changes = photo(96, 96), OPERATIONS[name]
    given = padded(changes) if backend == "batched" else changes
    found = BACKENDS[backend](view, given)
    assert difference(found, pillow(view, changes)) < LIMIT / 2
    if name != "nothing" and not name.endswith((" 1.0", " 0.0", " 0.1")) and backend == "opencv":
        assert difference(found, view) > 1  # it did something


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_whole_recipes(backend: str, recipe: str) -> None:
    """A jittered hue can leap where a colour is almost grey, so single views may differ by more."""
    image, found = photo(120, 90), []
    for seed in range(30):
        for plan in draw_views(random.Random(seed), RECIPES[recipe], 120, 90, (0.2, 1.0)):
            theirs = pil.render(image, plan, 64)
            found.append(difference(BACKENDS[backend](pillow_cut(image, plan.crop), plan.changes), theirs))
    assert np.mean(found) < LIMIT / 2
    assert np.max(found) < 2 * LIMIT


def pillow_cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    return np.asarray(pil.cut(Image.fromarray(image), crop, 64))


@pytest.mark.parametrize(
    "crop", [Crop(3, 5, 80, 100), Crop(0, 0, 20, 31, True), Crop(10, 10, 64, 64), Crop(2, 0, 1, 1)]
)
def test_opencv_cuts_like_pillow(crop: Crop) -> None:
    image = photo(120, 90)
    found = opencv.cut(image, crop, 64)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - pillow_cut(image, crop)).max() <= 1


def test_images_of_a_batch_do_not_mix() -> None:
    """Each image of a batch, with changes and orders of its own, is what it is alone."""
    rng = random.Random(3)
    views = np.stack([photo(32, 32, seed) for seed in range(6)])
    drawn = [RECIPES["byol"][seed % 2].draw(rng) for seed in range(6)]
    assert len({each.jitter[0][0] for each in drawn if each.jitter}) > 1
    together = change(torch.from_numpy(views).permute(0, 3, 1, 2), packed(drawn)).permute(0, 2, 3, 1).numpy()
    for view, changes, found in zip(views, drawn, together, strict=True):
        np.testing.assert_allclose(found, on_tensors(view, changes), atol=1e-3)


def test_normalised_is_to_tensor_and_normalize() -> None:
    views = np.stack([photo(7, 5, seed) for seed in range(3)])
    found = normalised(torch.from_numpy(views).permute(0, 3, 1, 2))
    assert found.is_contiguous(memory_format=torch.channels_last)
    official = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    assert torch.equal(found, torch.stack([official(view) for view in views]))
