"""Splits whose features and label maps are given, for tests of the methods that read them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from transfer.datasets.classes import Classes
from transfer.datasets.mask_numbers import Numbering
from transfer.frozen.features import Features
from transfer.frozen.method import Run, Split
from transfer.frozen.scenes import Scenes
from transfer.frozen.views import Images, Views


@dataclass(frozen=True)
class Held(Scenes):
    """Scenes whose label maps are held in memory, with grey pictures."""

    maps: tuple[np.ndarray, ...] = ()

    def label_map(self, index: int) -> np.ndarray:
        return self.maps[index]

    def picture(self, index: int) -> Image.Image:
        return Image.new("RGB", self.maps[index].shape[::-1], "grey")


def split(maps: list[np.ndarray], labels: list[np.ndarray], classes: int, zero_ignored: bool = False) -> Split:
    """Return a split of feature maps (h, w, C) and label maps (H, W) with 255 for ignored."""
    shapes = tuple((one.shape[0], one.shape[1]) for one in maps)
    starts = (0, *accumulate(h * w for h, w in shapes))
    cells = torch.from_numpy(np.concatenate([one.reshape(-1, one.shape[-1]) for one in maps]))
    numbering = Numbering(Classes(tuple(map(str, range(classes))), "test"), zero_ignored)
    names = tuple(Path(f"{index}.png") for index in range(len(maps)))
    scenes = Held("held, train", names, names, numbering, tuple(np.asarray(one, np.uint8) for one in labels))
    side = labels[0].shape[0] // shapes[0][0]
    return Split(Features(cells, shapes, starts, side), Views(scenes, Images(resize="native")))


def random_split(images: int, side: int, stride: int, channels: int, classes: int, seed: int) -> Split:
    """Return a split of random features of type float64 and random labels, of which every sixth is ignored."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes + max(1, classes // 5), (images, side * stride, side * stride))
    labels = np.where(labels >= classes, 255, labels).astype(np.uint8)
    return split(list(rng.normal(size=(images, side, side, channels))), list(labels), classes)


def one_hot(images: int, side: int, stride: int, classes: int, seed: int) -> Split:
    """Return a split whose cells have one class each, and the class as their feature."""
    cells = np.random.default_rng(seed).integers(0, classes, (images, side, side))
    labels = cells.repeat(stride, 1).repeat(stride, 2)
    return split(list(np.eye(classes)[cells]), list(labels), classes)


def run(seed: int = 0) -> Run:
    return Run(seed, torch.device("cpu"), Path())
