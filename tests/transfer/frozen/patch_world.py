"""Label maps on disk with features of the test's own, as a split of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from transfer.datasets.classes import Classes
from transfer.datasets.mask_numbers import Numbering
from transfer.frozen.features import Features
from transfer.frozen.method import Split
from transfer.frozen.scenes import Scenes
from transfer.frozen.views import Images, Views


def split(
    folder: Path,
    labels: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    classes: int,
    zero_ignored: bool = False,
    images: Images = Images(resize="native"),  # noqa: B008
) -> Split:
    """Return a split of pictures with label maps (H, W), as files hold them, and features (h, w, C)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, map_ in enumerate(labels):
        paths.append(folder / f"{index}.png")
        Image.fromarray(np.asarray(map_, np.uint8)).save(paths[-1])
    names = Classes(tuple(f"class {index}" for index in range(classes)), "none")
    scenes = Scenes("some set, train", tuple(paths), tuple(paths), Numbering(names, zero_ignored))
    shapes = tuple((m.shape[0], m.shape[1]) for m in maps)
    cells = torch.from_numpy(np.concatenate([m.reshape(-1, m.shape[2]) for m in maps]))
    starts = (0, *accumulate(h * w for h, w in shapes))
    return Split(Features(cells, shapes, starts, -(-labels[0].shape[0] // shapes[0][0])), Views(scenes, images))
