"""Write the ADE20K part of the mini world: `ADEChallengeData2016/{images,annotations}/{training,validation}`.

The images are street scenes, as in the Cityscapes part. Each pixel has the number of one of the 150 classes, or 0
("other") for clutter and the bonnet. ADE20K has no class "train"; trains get its class "airplane".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.miniworld.images import save_jpeg, save_png
from benchmarks.miniworld.scene import Drawing

SPLITS = {"training": 100, "validation": 40}
SHORT = {"training": "train", "validation": "val"}
SIZE = (160, 128)  # width, height
# Class numbers of objectInfo150.txt.
STUFF = {"building": 2, "sky": 3, "vegetation": 5, "road": 7, "sidewalk": 12}
THINGS = {"person": 13, "car": 21, "bus": 81, "train": 91, "motorcycle": 117, "bicycle": 128}


def write(drawing: Drawing, root: Path, split: str, index: int, rng: np.random.Generator) -> None:
    """Write the image and the label map of scene ``index`` of ``split``."""
    scene = drawing.street(rng, index, *SIZE, count=int(rng.integers(1, 4)), crowd=False)
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    for layer in scene.layers:
        labels[layer.visible] = (STUFF | THINGS).get(layer.label, 0)
    home, name = root / "ADEChallengeData2016", f"ADE_{SHORT[split]}_{index + 1:08d}"
    save_jpeg(home / "images" / split / f"{name}.jpg", scene.pixels)
    save_png(home / "annotations" / split / f"{name}.png", labels)
