"""Write the ImageNet part of the mini world, `imagenet/{train,val}/<class>/*.JPEG`, with one large object per image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.miniworld.images import save_jpeg
from benchmarks.miniworld.scene import Drawing
from pixbench.errors import UserError

SPLITS = {"train": 3000, "val": 300}


def write(drawing: Drawing, root: Path, split: str, index: int, rng: np.random.Generator) -> None:
    """Write the image of scene ``index`` of ``split``."""
    width, height = (int(n) for n in rng.integers(112, 145, 2))
    scene = drawing.portrait(rng, index, width, height)
    if not scene.objects:
        raise UserError(
            "an object of one class could not be put into its picture; look for cut-outs that are thin or in small pieces"
        )
    object_class = scene.objects[0].object_class
    name = f"{object_class.synset}_{index + 1}" if split == "train" else f"ILSVRC2012_val_{index + 1:08d}"
    save_jpeg(root / "imagenet" / split / object_class.synset / f"{name}.JPEG", scene.pixels)
