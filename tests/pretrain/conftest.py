"""Small folders of images that look like something, smooth colour fields with some grain; and runs on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pretrain.config import from_dict
from pretrain.settings import RunConfig

QUEUES = {"moco_v2": {"queue_size": 32}}


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


@pytest.fixture
def tiny(image_tree: Callable[..., Path], tmp_path: Path) -> Callable[..., RunConfig]:
    """Configs of runs on 24 images, 3 steps an epoch, 2 epochs."""
    root = image_tree(2, 12, size=(40, 36))

    def make(out: str, method: str = "pixpro", **changes: Any) -> RunConfig:
        content = {
            "method": {"name": method, "hidden": 16, "dim": 8, **QUEUES.get(method, {})},
            "data": {
                **{
                    "root": str(root),
                    "layout": "class_folder",
                    "backend": "opencv",
                    "image_size": 32,
                    "min_scale": 0.2,
                },
                **{"workers": 0, "cache": True},
            },
            "backbone": {"depth": 18, "width": 0.0625, "output_stride": 16},
            "optimizer": {"base_lr": 0.5},
            "schedule": {"warmup_epochs": 1},
            **{"epochs": 2, "batch_size": 8, "log_every": 1, "out": str(tmp_path / out)},
        }
        return replace(from_dict(content), **changes)

    return make
