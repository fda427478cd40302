"""The crops of evaluations are those of torchvision's usual two steps, for strips too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pretrain.data.centre_crops import centre_crop


@pytest.mark.parametrize("size", [32, 37, 224])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (64, 64), (31, 400), (3, 2), (1, 1), (700, 20)])
def test_they_are_torchvisions_but_for_rounding(width: int, height: int, size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    steps = v2.Compose([v2.Resize(round(size * 8 / 7)), v2.CenterCrop(size), v2.PILToTensor()])
    ours = v2.functional.pil_to_tensor(centre_crop(image, size))
    assert ours.shape == (3, size, size)
    strip = max(width, height) > 8 * min(width, height)  # Pillow rounds between its two passes
    assert (ours.int() - steps(image).int()).abs().max() <= 1 + strip
    assert strip or (ours == steps(image)).float().mean() > 0.99


def test_a_strip_needs_no_more_memory_than_a_square() -> None:
    crop = centre_crop(Image.new("RGB", (1, 1_000_000), "red"), 224)  # 57 million rows, if it were enlarged first
    assert torch.equal(v2.functional.pil_to_tensor(crop)[0], torch.full((224, 224), 255, dtype=torch.uint8))
