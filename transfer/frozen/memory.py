"""A memory of labelled patches, and the labels that other patches get from their nearest neighbours in it.

Shapes: K classes, N patches of training views, n of them in the memory; a map has h × w patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from pixbench.errors import UserError
from transfer.datasets.mask_numbers import IGNORED
from transfer.frozen.method import Split
from transfer.frozen.patch_labels import class_counts, rarest
from transfer.frozen.scenes import Scenes
from transfer.frozen.scoring import predicted
from transfer.frozen.search import Backend, nearest

QUERIES = 2**14
"""Number of patches, at least, that are searched at a time: the memory is read once for them."""


@dataclass(frozen=True)
class Labelling:
    """What the pixels of label maps count as."""

    ignored: Literal["left_out", "class_0"] = "left_out"
    """Ignored pixels in the memory: they do not count, and a patch without others is left out; or they count as class 0, which
    is a class of its own in front of the others where files number their classes from 1 (ADE20K)."""
    masks: Literal["centre", "corner"] = "centre"
    """Pixel of a label map that a smaller one takes: see `resized_labels`."""

    def shift(self, scenes: Scenes) -> int:
        """Return how much the numbers of classes rise because a class stands in front of them."""
        assert scenes.numbering is not None
        return int(self.ignored == "class_0" and scenes.numbering.zero_ignored)

    def classes(self, scenes: Scenes) -> int:
        """Return K."""
        return len(scenes.classes) + self.shift(scenes)

    def numbers(self, labels: np.ndarray, scenes: Scenes, remembered: bool) -> np.ndarray:
        """Return a label map with the numbers of these classes, to be ``remembered`` or to be compared with."""
        ignored = 0 if remembered and self.ignored == "class_0" else IGNORED
        return np.where(labels == IGNORED, ignored, labels + self.shift(scenes)).astype(np.uint8)


@dataclass(frozen=True)
class Memory:
    """The labelled patches of the training views."""

    features: Tensor
    """(N, C)."""
    rows: Tensor
    """(n,) of the patches that are remembered, in ascending order."""
    shares: csr_matrix
    """(n, K) share of each class among the pixels of a patch. Most patches show one class or two."""
    unlabelled: int
    """Number of patches that were left out because all of their pixels are ignored."""


def fill(train: Split, labelling: Labelling, size: int | None, seed: int) -> Memory:
    """Return the memory of the training views: all patches, or at most ``size``, an equal number of each view.

    Raises:
        UserError: no pixel has a label.
    """
    scenes, features = train.views.scenes, train.features
    most = None if size is None else max(1, size // max(1, len(train)))
    rows, shares, unlabelled = [], [], 0
    for index, cells in enumerate(features.shapes):
        labels = labelling.numbers(train.views.labels(index, labelling.masks == "corner"), scenes, True)
        counts = class_counts(labels, cells, features.stride, labelling.classes(scenes))
        kept = np.arange(len(counts)) if most is None else rarest(counts, most, np.random.default_rng((seed, index)))
        labelled = counts[kept].any(1)
        unlabelled += int((~labelled).sum())
        kept = kept[labelled]
        rows.append(features.starts[index] + kept)
        shares.append(csr_matrix(counts[kept] / counts[kept].sum(1, keepdims=True)))
    places = torch.from_numpy(np.concatenate(rows))
    if not len(places):
        raise UserError(f"{scenes.name} has no labelled pixel; look at its label maps")
    return Memory(features.cells, places, vstack(shares, format="csr"), unlabelled)


def retrieved(
    memory: Memory, test: Split, k: int, temperature: float, device: torch.device, backend: Backend = "torch"
) -> Iterator[tuple[int, Tensor]]:
    """Yield each test picture and the class shares (h, w, K) of its patches.

    They are the mean of those of the k nearest patches by cosine, weighted by softmax(cosine / ``temperature``).
    """
    features = test.features
    rows = None if len(memory.rows) == len(memory.features) else memory.rows
    for first, last in blocks(features.starts):
        queries = features.cells[features.starts[first] : features.starts[last]].to(device)
        found = nearest(queries, memory.features, k, "cosine", rows, backend)
        weights = (found.values / temperature).softmax(1).cpu().numpy()
        place = (found.patches.cpu().numpy().ravel(), np.arange(len(weights) + 1) * k)
        votes = csr_matrix((weights.ravel(), *place), (len(weights), memory.shares.shape[0]))
        shares = torch.from_numpy((votes @ memory.shares).toarray())
        cells = [h * w for h, w in features.shapes[first:last]]
        for index, some in zip(range(first, last), shares.split(cells), strict=True):
            yield index, some.view(*features.shapes[index], -1)


def blocks(starts: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield ranges of pictures of at least `QUERIES` patches; ``starts`` are the first patches of the pictures, and last N."""
    first = 0
    for last in range(1, len(starts)):
        if starts[last] - starts[first] >= QUERIES or last == len(starts) - 1:
            yield first, last
            first = last


def label_map(shares: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the predicted classes (H, W) of a picture: class shares (h, w, K) interpolated, the largest taken."""
    shown = shares.flatten(0, 1).any(0).nonzero().flatten()  # only these can win, and K planes of a picture are large
    return shown[predicted(shares[..., shown], (shape[0], shape[1]))]
