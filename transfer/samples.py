"""The few test pictures that a run keeps, small, with their truth and with what the run found in them.

All runs on one data set keep the same pictures: those whose names have the smallest SHA-256 digests. So the choice needs no
list of all pictures, and depends neither on their order nor on the number of processes.

Shapes: S pictures; a small picture has h × w pixels; H × W pixels at full size; K classes; n objects with J keypoints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pixbench.thumbnails import small, to_jpeg

SAMPLES = "samples"
"""Name of the file with what `together` returns, without ".npz"."""
FEATURES = "features"
"""Name of the file with what `transfer.frozen.samples.features` returns, without ".npz"."""
PICTURES = 6
"""S, if the test set has as many."""
OBJECTS = 20
"""Most objects of a picture that are kept: the found ones with the highest scores."""

Sample = dict[str, np.ndarray]
"""Arrays of one picture."""


def rank(name: str) -> str:
    """Return what the names of pictures are sorted by; the first `PICTURES` are kept."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def chosen(names: Sequence[str]) -> list[int]:
    """Return the places of the names that are kept, in the order in which they are kept."""
    return sorted(range(len(names)), key=lambda place: rank(names[place]))[:PICTURES]


class Choice:
    """Says of one picture after the other whether it may be kept; each process has its own share of them."""

    def __init__(self) -> None:
        self._best: list[str] = []

    def wants(self, name: str) -> bool:
        """Return whether ``name`` is among the first of those that were asked about so far."""
        found = rank(name)
        self._best = sorted({*self._best, found})[:PICTURES]
        return found in self._best


def together(samples: Mapping[str, Sample], **of_all: Any) -> dict[str, np.ndarray]:
    """Return the arrays of the file: "images" (S,) names, ``of_all``, and those of picture i with "_i" after their names."""
    names = sorted(samples, key=rank)[:PICTURES]
    arrays = {"images": np.array(names, dtype=str)} | {key: np.asarray(value) for key, value in of_all.items()}
    for number, name in enumerate(names):
        arrays |= {f"{key}_{number}": array for key, array in samples[name].items()}
    return arrays


def labelled(picture: Image.Image, truth: np.ndarray, found: np.ndarray) -> Sample:
    """Return a picture with two label maps of any size, uint8: "picture" (bytes of a JPEG file), "truth" and "found" (h, w)."""
    shown = small(picture)
    maps = {name: nearest(labels, shown.size) for name, labels in (("truth", truth), ("found", found))}
    return {"picture": to_jpeg(shown), **maps}


def nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a label map in another ``size`` (width, height); each pixel takes the label in its middle."""
    return np.array(Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def with_objects(picture: Image.Image, truth: Sample, found: Sample) -> Sample:
    """Return a picture with its true and its found objects: "picture", and their arrays with "truth_" or "found_" in front.

    Args:
        picture: the picture, (W, H).
        truth: "boxes" (n, 4), x1, y1, x2, y2 in pixels; "classes" (n,); and maybe "masks" (n, H, W) bool and "keypoints"
            (n, J, 3), x and y in pixels and how visible.
        found: the same, and "scores" (n,).

    Returns:
        Boxes and keypoints in shares of the picture's sides, float32, and masks of the small picture, packed:
        (n, ⌈h·w / 8⌉) uint8.
    """
    shown, scale = small(picture), np.array(picture.size, np.float32)
    sample = {"picture": to_jpeg(shown)}
    for name, objects in (("truth", truth), ("found", found)):
        first = np.argsort(-objects["scores"], kind="stable")[:OBJECTS] if name == "found" else np.s_[:OBJECTS]
        some = {key: array[first] for key, array in objects.items()}
        some["boxes"] = (some["boxes"].reshape(-1, 2, 2) / scale).reshape(-1, 4).astype(np.float32)
        some["classes"] = some["classes"].astype(np.int32)
        if "masks" in some:
            masks = [nearest(mask, shown.size) > 0 for mask in some["masks"]]
            some["masks"] = np.packbits(np.array(masks, bool).reshape(len(masks), shown.width * shown.height), axis=1)
        if "keypoints" in some:
            places = some["keypoints"] / np.append(scale, 1)
            some["keypoints"] = places.astype(np.float32)
        sample |= {f"{name}_{key}": array for key, array in some.items()}
    return sample


def unpacked(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the masks (n, h, w) bool that `with_objects` has packed, for a small picture of ``size`` (width, height)."""
    width, height = size
    return np.unpackbits(masks, axis=1, count=width * height).reshape(-1, height, width).astype(bool)
