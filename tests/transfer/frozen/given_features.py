"""Splits with given features, for tests of methods that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from transfer.datasets.classes import Classes
from transfer.datasets.mask_numbers import Numbering
from transfer.frozen.features import Features
from transfer.frozen.method import Split
from transfer.frozen.scenes import Scenes
from transfer.frozen.views import Images, Views


def features(maps: Sequence[Any], stride: int) -> Features:
    """Return the features of ``maps``, each (h, w, C)."""
    tensors = [torch.as_tensor(map_) for map_ in maps]
    shapes = tuple((map_.shape[0], map_.shape[1]) for map_ in tensors)
    starts = (0, *accumulate(h * w for h, w in shapes))
    return Features(torch.cat([map_.flatten(0, 1) for map_ in tensors]), shapes, starts, stride)


def labelled(folder: Path, maps: Sequence[Any], labels: Sequence[np.ndarray], names: str, stride: int) -> Split:
    """Return a split of pictures with the label maps ``labels`` (H, W) at their own size."""
    folder.mkdir(exist_ok=True)
    pictures, truths = [], []
    for number, label in enumerate(labels):
        pictures.append(folder / f"{number}.png")
        truths.append(folder / f"{number}_labels.png")
        Image.new("RGB", label.shape[::-1]).save(pictures[-1])
        Image.fromarray(label.astype(np.uint8)).save(truths[-1])
    scenes = Scenes("test", tuple(pictures), tuple(truths), Numbering(Classes(tuple(names.split()), "a test"), False))
    return Split(features(maps, stride), Views(scenes, Images(resize="native")))


def boxed(folder: Path, maps: Sequence[Any], boxes: Sequence[Sequence[Sequence[int]]], size: tuple[int, int]) -> Split:
    """Return a split of pictures of ``size`` (width, height), 16 pixels a cell, with ``boxes`` as VOC writes them."""
    folder.mkdir(exist_ok=True)
    pictures, truths = [], []
    for number, some in enumerate(boxes):
        pictures.append(folder / f"{number}.png")
        truths.append(folder / f"{number}.xml")
        Image.new("RGB", size).save(pictures[-1])
        corners = ("xmin", "ymin", "xmax", "ymax")
        objects = "".join(
            "<object><name>cat</name><difficult>1</difficult><truncated>1</truncated><bndbox>"
            + "".join(f"<{name}>{value}</{name}>" for name, value in zip(corners, box, strict=True))
            + "</bndbox></object>"
            for box in some
        )
        truths[-1].write_text(f"<annotation>{objects}</annotation>", encoding="utf-8")
    return Split(features(maps, 16), Views(Scenes("test", tuple(pictures), tuple(truths)), Images(resize="padded")))


def other(split: Split, maps: Sequence[Any], views: Views) -> Split:
    """Return another view of the pictures of ``split``, with its own features."""
    return replace(split, features=features(maps, split.features.stride), views=views)
