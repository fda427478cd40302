"""Write the ImageNet part of the mini world, `imagenet/{train,val}/<class>/*.JPEG`, with one large object per image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.miniworld.images import save_jpeg
from benchmarks.miniworld.object_classes import OBJECT_CLASSES
from benchmarks.miniworld.scenes import draw_scene

SPLITS = {"train": 3000, "val": 300}


def write(root: Path, split: str, index: int, rng: np.random.Generator) -> None:
    """Write the image of scene ``index`` of ``split``."""
    object_class = OBJECT_CLASSES[index % len(OBJECT_CLASSES)]
    width, height = (int(n) for n in rng.integers(112, 145, 2))
    scene = draw_scene(rng, object_class, width, height, count=1, sizes=(56, 100))
    name = f"{object_class.synset}_{index + 1}" if split == "train" else f"ILSVRC2012_val_{index + 1:08d}"
    save_jpeg(root / "imagenet" / split / object_class.synset / f"{name}.JPEG", scene.pixels)
