"""Cells with the labels of all their pixels, as facebookresearch/capi (eval_segmentation.py) divides, scales and scores them.

Shapes: N cells of P = stride² pixels and C channels; n chosen cells; K classes.

Label maps have the numbers of the data set's own files here (ADE20K: 0 is ignored, classes from 1), because a tie goes to the
smallest number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pixbench.errors import UserError
from transfer.datasets.mask_numbers import IGNORED
from transfer.frozen.method import Split
from transfer.frozen.samples import keep_labels
from transfer.frozen.scoring import TEST_PICTURES, Confusion, ScoreAt, labels_to_score
from transfer.frozen.views import resized_labels
from transfer.kept import Kept
from transfer.samples import chosen

PART = 2**24
"""Number of values that are worked on at a time: 64 MiB in float32."""
KEPT = 2**27
"""Number of standardised values that are kept at most (512 MiB); more are computed anew each time they are needed."""

IGNORED_CLASS = "(ignored)"
"""What records call ignored pixels where they count as a class."""


class Scored(NamedTuple):
    """How predictions compare with labels."""

    miou: float
    """In per cent."""
    accuracy: float
    """In per cent."""
    iou: Tensor
    """(K + 1,), of the classes and of ignored pixels, in per cent."""
    confusion: Confusion
    """Of pictures one by one if all were compared."""


@dataclass(frozen=True)
class Cells:
    """The cells of a split."""

    split: Split
    labels: Tensor
    """(N, P) uint8, the pixels of each cell row by row."""
    first: int
    """Number of the first class."""
    modes: Tensor
    """(N,) uint8: the most frequent label of each cell, the smallest one in a tie."""

    @property
    def ignored(self) -> int:
        """The number of ignored pixels."""
        return (IGNORED + self.first) % 256

    @property
    def known(self) -> Tensor:
        """Which cells (N,) bool have a class as their most frequent label."""
        return self.modes != self.ignored

    def of_images(self, images: np.ndarray) -> Tensor:
        """Return the numbers of the cells of ``images``, in ascending order."""
        starts = self.split.features.starts
        return torch.cat([torch.arange(starts[i], starts[i + 1]) for i in np.sort(images)])

    def score(
        self,
        predicted: Tensor,
        chosen: Tensor | None = None,
        score_at: ScoreAt = "input",
        pictures: str = TEST_PICTURES,
    ) -> Scored:
        """Compare predictions with labels.

        Pixels whose label is ignored do not count. The mean is taken over the classes that are labelled or predicted. If the
        number of ignored pixels is predicted anywhere, it counts as one more class with an IoU of 0, as in scikit-learn's
        ``jaccard_score(average="macro")``.

        Args:
            predicted: labels (n, P) uint8, or (n, 1) if all pixels of a cell have the same.
            chosen: numbers of the cells (n,); None for all.
            score_at: resolution of the comparison. Labels and predictions are resized to the nearest pixel.
            pictures: what messages call them.
        """
        classes = len(self.split.views.scenes.classes)
        confusion = Confusion(classes + 1)
        places = torch.arange(len(self.labels)) if chosen is None else chosen
        if score_at == "input":
            rows = max(1, PART // self.labels.shape[1])
            sizes = self._sizes if chosen is None else rows  # each picture by itself, to know its part
            for some, guesses in zip(places.split(sizes), predicted.split(sizes), strict=True):
                labels = self.labels[some]
                confusion.add(labels - self.first, self._classes(guesses.expand_as(labels), classes))
        else:
            assert chosen is None, "only whole images can be resized"
            for index, (start, end) in enumerate(pairwise(self._starts)):
                truth = labels_to_score(self.split.views, index, score_at)
                found = resized_labels(self._map(predicted[start:end], index), (truth.shape[0], truth.shape[1]))
                confusion.add(truth, self._classes(torch.from_numpy(found), classes))
        iou = confusion.iou()
        return Scored(iou.nanmean().item(), confusion.metrics(pictures=pictures)["aAcc"], iou, confusion)

    def kept(self, scored: Scored, predicted: Tensor) -> Kept:
        """Return what a run keeps of the scores of all pictures, and of the labels that `score` compared.

        Ignored pixels are the last class.
        """
        kept, scenes = Kept(), self.split.views.scenes
        classes = [*scenes.classes.names, IGNORED_CLASS]
        kept.add_areas(("mIoU", "aAcc"), scenes.names, classes, scored.confusion.areas())
        kept.add_confusion(scored.confusion.counts.numpy(), classes)
        maps, starts = {}, self._starts
        for index in chosen(scenes.names):
            guess = self._map(predicted[starts[index] : starts[index + 1]], index)
            found = self._classes(torch.from_numpy(guess), len(scenes.classes))
            maps[index] = self.split.views.labels(index), found.numpy()
        keep_labels(kept, scenes, classes, maps)
        return kept

    @property
    def _sizes(self) -> list[int]:
        return [end - start for start, end in pairwise(self._starts)]

    @property
    def _starts(self) -> tuple[int, ...]:
        return self.split.features.starts

    def _map(self, predicted: Tensor, index: int) -> np.ndarray:
        """Return the labels of the cells of image ``index`` as a map (H, W)."""
        (height, width), side = self.split.features.shapes[index], self.split.features.stride
        pixels = predicted.expand(-1, side * side).view(height, width, side, side)
        return pixels.transpose(1, 2).reshape(height * side, width * side).numpy().copy()

    def _classes(self, numbers: Tensor, classes: int) -> Tensor:
        """Return the class of each number, and ``classes`` for ignored."""
        return (numbers - self.first).clamp(max=classes)


def cells_of(split: Split) -> Cells:
    """Return the cells of ``split`` with their labels, which take a byte for each pixel of the inputs; these are whole cells."""
    features, views = split.features, split.views
    side, first = features.stride, int(views.scenes.numbering is not None and views.scenes.numbering.zero_ignored)
    labels = torch.empty(len(features.cells), side * side, dtype=torch.uint8)
    for index, (height, width) in enumerate(features.shapes):
        found = torch.from_numpy(views.labels(index))
        pixels = found.view(height, side, width, side).transpose(1, 2).reshape(-1, side * side)
        labels[features.starts[index] : features.starts[index + 1]] = pixels + first
    return Cells(split, labels, first, _modes(labels))


def _modes(labels: Tensor) -> Tensor:
    found = []
    for some in labels.split(max(1, PART // labels.shape[1])):
        offsets = 256 * torch.arange(len(some))[:, None]
        counts = torch.bincount((some + offsets).flatten(), minlength=256 * len(some)).view(-1, 256)
        found.append(counts.argmax(1).to(torch.uint8))  # the first of several largest
    return torch.cat(found)


def halves(images: int, seed: int, held_out: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the training images to fit on, and of one in ``held_out`` to choose hyperparameters on.

    Raises:
        UserError: there are fewer than ``held_out`` images.
    """
    if images < held_out:
        raise UserError(
            f"{name} has {images} images, but one in {held_out} is held out to choose hyperparameters on; add images, or set "
            "settings.held_out to at most their number"
        )
    order = np.random.RandomState(seed).permutation(images)
    return order[images // held_out :], order[: images // held_out]


@dataclass(frozen=True)
class Rows:
    """Chosen cells, standardised when they are read."""

    cells: Tensor
    """(N, C), mapped from a file."""
    chosen: Tensor
    """(n,) int64, ascending."""
    mean: Tensor
    """(C,)."""
    std: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells, and C."""
        return len(self.chosen), self.cells.shape[1]

    @cached_property
    def _kept(self) -> Tensor | None:
        if len(self) * self.cells.shape[1] > KEPT:
            return None
        return torch.cat([self._read(some) for some in self.chosen.split(max(1, PART // self.cells.shape[1]))])

    def _read(self, some: Tensor) -> Tensor:
        return (self.cells[some].to(self.device) - self.mean) / self.std

    def __getitem__(self, part: slice) -> Tensor:
        """Return the values (m, C) of the chosen cells in ``part``."""
        return self._read(self.chosen[part]) if self._kept is None else self._kept[part]

    def parts(self, rows: int) -> Iterator[Tensor]:
        """Yield the values of all chosen cells, ``rows`` at a time."""
        return (self[first : first + rows] for first in range(0, len(self), rows))


def moments(cells: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (C,) of the cells with the numbers ``chosen``, as scikit-learn's StandardScaler.

    They are summed up in float64 and have the type of ``cells``. The deviation of a constant channel is 1.
    """
    count, mean, squares = 0, torch.zeros(cells.shape[1], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for some in chosen.split(max(1, PART // cells.shape[1])):
        values = cells[some].double()
        offset, total = values.mean(0) - mean, count + len(values)
        squares = squares + (values - values.mean(0)).square().sum(0) + offset.square() * (count * len(values) / total)
        mean, count = mean + offset * (len(values) / total), total
    eps, variance = torch.finfo(torch.float64).eps, squares / count
    constant = variance <= count * eps * variance + (count * mean * eps).square()
    return mean.to(cells.dtype), torch.where(constant, 1.0, variance.sqrt()).to(cells.dtype)
