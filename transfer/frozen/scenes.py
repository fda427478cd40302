"""The pictures of one split of a data set, with their label maps, annotation files or classes.

Shapes: H × W pixels of a picture. Label maps hold the number of a class in the order of `Scenes.classes`, or `IGNORED`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from pixbench.errors import UserError
from pretrain.data.pixels import broken, decode
from pretrain.data.sources import Source
from transfer.datasets.classes import Classes, published_classes
from transfer.datasets.layout import SETS, home_of, names_of, picture_of, wanted_parts
from transfer.datasets.mask_numbers import IGNORED, Numbering


class Pictures(Protocol):
    """Pictures in a fixed order."""

    @property
    def name(self) -> str:
        """Data set and split, for messages and records."""

    def __len__(self) -> int: ...

    def picture(self, index: int) -> Image.Image:
        """Return picture ``index`` in RGB."""

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height of picture ``index`` from its header."""

    def fingerprint(self) -> str:
        """Return a digest that changes when a picture does."""


@dataclass(frozen=True)
class Labelled:
    """Pictures of one split in class folders; the class of picture i is ``source.labels[i]``."""

    name: str
    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def picture(self, index: int) -> Image.Image:
        """Return picture ``index`` in RGB; raise `BrokenImage` if it cannot be read or decoded."""
        return self.source.load(index)

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height of picture ``index`` from its header, which is read once."""
        return _remembered(self._sizes, index, lambda: Path(self.source.where(index)))

    @cached_property
    def _sizes(self) -> np.ndarray:
        return _unknown(len(self))

    def fingerprint(self) -> str:
        """Return the digest of path, size and time of change of all pictures, and of the range of their pixels."""
        return _digest_of((Path(self.source.where(index)) for index in range(len(self))), str(self.source.pixel_range))


@dataclass(frozen=True)
class Scenes:
    """Pictures of one split, in a fixed order, and the files that say what they show."""

    name: str
    """Data set and split, for messages and records."""
    pictures: tuple[Path, ...]
    truths: tuple[Path, ...]
    """One label map or annotation file for each picture."""
    numbering: Numbering | None = None
    """What the numbers in the label maps stand for; None if there are no label maps."""

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def classes(self) -> Classes:
        """The classes of the label maps."""
        assert self.numbering is not None, f"{self.name} has no label maps"
        return self.numbering.classes

    @property
    def names(self) -> list[str]:
        """The names of the pictures in records: those of their files, without the ending."""
        return [path.stem for path in self.pictures]

    def picture(self, index: int) -> Image.Image:
        """Return picture ``index`` in RGB.

        Raises:
            BrokenImage: it cannot be decoded. `OSError` if it cannot be read.
        """
        path = self.pictures[index]
        return decode(path.read_bytes(), str(path))

    def size(self, index: int) -> tuple[int, int]:
        """Return width and height of picture ``index`` from its header, which is read once."""
        return _remembered(self._sizes, index, lambda: self.pictures[index])

    @cached_property
    def _sizes(self) -> np.ndarray:
        return _unknown(len(self))

    def fingerprint(self) -> str:
        """Return the digest of path, size and time of change of all pictures."""
        return _digest_of(self.pictures)

    def label_map(self, index: int) -> np.ndarray:
        """Return the label map (H, W) of picture ``index`` at its own size, uint8."""
        assert self.numbering is not None, f"{self.name} has no label maps"
        with Image.open(self.truths[index]) as image:
            numbers = np.array(image, dtype=np.uint8)
        return numbers - 1 + (numbers == IGNORED) if self.numbering.zero_ignored else numbers

    def take(self, names: list[str]) -> Scenes:
        """Return the pictures with these ``names`` (file names without their ending), in the order of this split.

        Raises:
            UserError: there is no picture of a name.
        """
        places = {path.stem: place for place, path in enumerate(self.pictures)}
        if missing := [name for name in names if name not in places]:
            more = f" (nor {len(missing) - 1} more of the list)" if missing[1:] else ""
            raise UserError(f"{self.name} has no picture {missing[0]}{more}; give a list of pictures of this data set")
        kept = sorted({places[name] for name in names})
        return replace(
            self,
            pictures=tuple(self.pictures[place] for place in kept),
            truths=tuple(self.truths[place] for place in kept),
        )


def _unknown(count: int) -> np.ndarray:
    """Return widths and heights (n, 2) that are not known yet."""
    return np.zeros((count, 2), np.int32)


def _remembered(sizes: np.ndarray, index: int, path: Callable[[], Path]) -> tuple[int, int]:
    """Return width and height of picture ``index`` from ``sizes`` (n, 2) or, the first time, from the header of its file."""
    if not sizes[index].any():
        sizes[index] = header_size(path())
    width, height = sizes[index].tolist()
    return width, height


def header_size(path: Path) -> tuple[int, int]:
    """Return width and height of a picture from its header; raise `BrokenImage` if it has none."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except UnidentifiedImageError as error:
        raise broken(str(path), "it has no header of an image") from error


def _digest_of(paths: Iterable[Path], start: str = "") -> str:
    digest = hashlib.sha256(start.encode())
    for path in paths:
        about = path.stat()
        line = f"{os.path.abspath(path)}\t{about.st_size}\t{about.st_mtime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def scenes(data_root: Path, dataset: str, split: str, classes: Classes | None = None) -> Scenes:
    """Return the pictures of ``split`` ("train" or "test") of ``dataset``, a key of `configs/data.yaml`.

    Args:
        data_root: folder of all data sets.
        dataset: name of the data set.
        split: "train" or "test".
        classes: a user's own classes, in place of the published ones.
    """
    entry, home = SETS[dataset], home_of(data_root, dataset)
    parts = [p for p in wanted_parts(home, dataset, classes is not None) if p.get("split") == split and "check" in p]
    pairs = [
        (home / picture_of(part).format(name), home / part["files"][-1].format(name))
        for part in parts
        for name in names_of(home, part)
    ]
    pictures, truths = zip(*pairs, strict=True)
    numbering = None
    if all(part["check"] == "masks" for part in parts):
        zero = any(part.get("zero_ignored", False) for part in parts)
        numbering = Numbering(classes or published_classes(entry["classes"]), zero)
    return Scenes(f"{dataset}, {split}", pictures, truths, numbering)
