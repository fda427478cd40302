"""Runs with samples as real ones keep them: scenes of bright rectangles, predictions that miss a little, features by class."""

from __future__ import annotations

from pathlib import Path

import made_results
import numpy as np
import torch
from PIL import Image

from pixbench.results import write_arrays
from pixbench.thumbnails import to_jpeg
from pretrain.log.view_samples import positive_pairs
from transfer.frozen.samples import reduced, unit
from transfer.samples import labelled, nearest, together, with_objects

CLASSES = ("background", "car", "person", "tree")
COLOURS = np.array([(0, 0, 0), (220, 40, 40), (40, 90, 220), (40, 170, 60)], np.uint8)
BOXES = ((8, 20, 60, 70, 1), (70, 10, 95, 80, 2), (100, 30, 150, 100, 3))
"""x1, y1, x2, y2 and class of the rectangles of a scene, in pixels."""
SIZE = 160, 112
PICTURES = 6
CELLS = 10, 7
"""Cells across and down."""


def scene(number: int) -> tuple[Image.Image, np.ndarray]:
    """A picture and its label map."""
    rng = np.random.default_rng(number)
    pixels = rng.integers(90, 150, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
    labels = np.zeros(SIZE[::-1], np.uint8)
    for x1, y1, x2, y2, kind in BOXES[: 1 + number % 3]:
        pixels[y1:y2, x1:x2] = COLOURS[kind] // 2 + rng.integers(0, 120, (y2 - y1, x2 - x1, 1)).astype(np.uint8)
        labels[y1:y2, x1:x2] = kind
    labels[:4] = 255
    return Image.fromarray(pixels), labels


def objects(number: int, shift: int = 0, scores: bool = False) -> dict[str, np.ndarray]:
    """The rectangles of a scene, moved by ``shift`` pixels."""
    some = BOXES[: 1 + number % 3]
    found = {
        "boxes": np.array([box[:4] for box in some], np.float32) + shift,
        "classes": np.array([box[4] for box in some]),
        "masks": np.array([np.roll(scene(number)[1] == box[4], shift, axis=(0, 1)) for box in some]),
    }
    return found | ({"scores": np.array([0.9, 0.6, 0.3], np.float32)[: len(some)]} if scores else {})


def write_labels(folder: Path, label: str, protocol: str = "voc12aug_knn", miss: int = 0, **changes: object) -> Path:
    """Write a run with label maps; predictions are moved by ``miss`` pixels. A frozen one keeps features too."""
    rng = np.random.default_rng(miss)
    samples, features = {}, {}
    for number in range(PICTURES):
        picture, labels = scene(number)
        samples[f"scene_{number}"] = labelled(picture, labels, np.roll(np.where(labels == 255, 0, labels), miss, 1))
        kinds = nearest(labels, CELLS) % 255
        maps = np.eye(len(CLASSES))[kinds] + rng.normal(0, 0.15 + 0.05 * miss, (*kinds.shape, len(CLASSES)))
        numbers, scale, error = reduced(unit(torch.from_numpy(maps).float()).flatten(0, 1))
        features[f"scene_{number}"] = {
            "cells": numbers.reshape(*kinds.shape, -1),
            "scale": np.float32(scale),
            "error": np.float32(error),
            "pca": (255 * np.clip(maps[..., 1:], 0, 1)).astype(np.uint8),
        }
    files = {"samples": together(samples, classes=np.array(CLASSES), colours=COLOURS)}
    if protocol.endswith(("_knn", "_incontext")):
        files["features"] = together(features)
    return _write(folder, files, protocol, label, changes)


def write_objects(folder: Path, label: str, protocol: str = "coco_fpn_1x", miss: int = 0, **changes: object) -> Path:
    """Write a run with boxes and masks."""
    samples = {}
    for number in range(PICTURES):
        truth, found = objects(number), objects(number, miss, True)
        samples[f"scene_{number}"] = with_objects(scene(number)[0], truth, found)
    return _write(folder, {"samples": together(samples, classes=np.array(CLASSES))}, protocol, label, changes)


def _write(
    folder: Path, files: dict[str, dict[str, np.ndarray]], protocol: str, label: str, changes: dict[str, object]
) -> Path:
    stored = {f"{name}.npz": write_arrays(folder / f"{name}.npz", arrays) for name, arrays in files.items()}
    return made_results.write(folder, protocol, stored=stored, label=label, **changes)


def write_views(folder: Path, method: str, threshold: float | None) -> Path:
    """Write a pre-training run whose second view is the first one, moved and flipped."""
    boxes = torch.tensor([[0.0, 0.0, 0.6, 0.8], [0.9, 0.2, 0.3, 1.0]], dtype=torch.float64)
    arrays = {
        "images": np.array([f"scene_{number}" for number in range(4)]),
        "cells": np.array(7),
        "threshold": np.array(np.nan if threshold is None else threshold),
    }
    for number in range(4):
        picture = scene(number)[0]
        arrays[f"picture_{number}"] = to_jpeg(picture)
        for view, (x1, y1, x2, y2) in enumerate(boxes.tolist(), 1):
            box = min(x1, x2) * SIZE[0], y1 * SIZE[1], max(x1, x2) * SIZE[0], y2 * SIZE[1]
            cut = picture.resize((112, 112), box=box)
            arrays[f"view{view}_{number}"] = to_jpeg(cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if x1 > x2 else cut)
        arrays[f"boxes_{number}"] = boxes.numpy().astype(np.float32)
        arrays[f"common_{number}"] = np.array([[0.5, 0.25, 1, 1], [0.5, 0, 1, 0.75]], np.float32)
        if threshold is not None:
            arrays[f"pairs_{number}"] = positive_pairs(*boxes, 7, threshold)
    stored = {"views.npz": write_arrays(folder / "views.npz", arrays)}
    return made_results.write_pretraining(folder, method=method, stored=stored)
