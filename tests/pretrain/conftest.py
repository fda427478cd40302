"""Small folders of images that look like something: smooth colour fields with some grain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _textured(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8))


@pytest.fixture
def image_tree(tmp_path: Path) -> Callable[..., Path]:
    """``image_tree(classes, per_class)`` writes an ImageNet-style tree and returns its root."""

    def write(classes: int = 3, per_class: int = 8, size: tuple[int, int] = (48, 40), name: str = "images") -> Path:
        rng = np.random.default_rng(classes * 1000 + per_class)
        for label in range(classes):
            folder = tmp_path / name / "train" / f"n{label:08d}"
            folder.mkdir(parents=True)
            for number in range(per_class):
                _textured(rng, *size).save(folder / f"n{label:08d}_{number}.JPEG", quality=92)
        return tmp_path / name

    return write
