"""The order of the images in each epoch: a function of (seed, epoch) alone, so that a run can start at any step.

Shapes: n images, m numbers in an epoch.

The numbers of an epoch stand for images: number k is image k mod n. An image that is taken several times in an epoch has several
numbers, and each has crops and colours of its own. Without a mixture, m = n and every image is taken once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pixbench.errors import UserError
from pretrain.data.index import Index

SHARD_END = b".tar/"
"""What the name of an image in a shard has between the shard and its path there."""


@dataclass(frozen=True)
class EpochOrder:
    """Order of ``images`` images.

    Args:
        images: number of images.
        parts: the roots of a mixture: how many images each has, and how often each of its images is taken in an epoch. If they
            are taken w times, ⌊w⌋ numbers of every image are in each epoch, and round(w · images) − ⌊w⌋ · images further ones, of
            images that are drawn anew in each epoch.
        shards: where each shard begins; empty if all images are shuffled together.
        together: number of shards that are shuffled together. The shards are put in random order first.
    """

    images: int
    parts: tuple[tuple[int, float], ...] = ()
    shards: tuple[int, ...] = ()
    together: int = 0

    @classmethod
    def of(cls, index: Index, together: int) -> EpochOrder:
        """Return the order of the images of ``index``, with ``together`` shards shuffled at a time (0: all images).

        Raises:
            UserError: There are no shards.
        """
        if not together:
            return cls(len(index), index.parts)
        if index.layout != "webdataset" or len(index.places) < 2:
            raise UserError(
                f"data.shuffle_shards is {together}, but data.root is not several shards (layout {index.layout}); set it to 0"
            )
        starts, shard = list[int](), b""
        for number, name in enumerate(name for chunk in index.names.chunks() for name in chunk):
            if not number or not name.startswith(shard):  # by the names, which are still there if an image is not
                starts.append(number)
                shard = b"".join(name.partition(SHARD_END)[:2])
        return cls(len(index), shards=tuple(starts), together=together)

    @cached_property
    def dtype(self) -> type[np.signedinteger]:
        """Type of the numbers: int32 where they fit, to save memory."""
        most = max((weight for _, weight in self.parts), default=1)
        return np.int32 if self.images * (int(most) + 1) < 2**31 else np.int64

    def __len__(self) -> int:
        return sum(round(weight * count) for count, weight in self.parts) if self.parts else self.images

    def numbers(self, seed: int, epoch: int) -> np.ndarray:
        """Return the numbers of epoch ``epoch`` in order: (m,) int32 or int64."""
        rng = np.random.default_rng((seed, epoch))
        if self.together:
            return self._by_shards(rng)
        order = self._weighted(seed, epoch) if self.parts else np.arange(self.images, dtype=self.dtype)
        rng.shuffle(order)
        return order

    def _weighted(self, seed: int, epoch: int) -> np.ndarray:
        chosen, start = [], 0
        for part, (count, weight) in enumerate(self.parts):
            whole = int(weight)
            own = np.arange(start, start + count, dtype=self.dtype)
            chosen += [own + copy * self.images for copy in range(whole)]
            rest = round(weight * count) - whole * count
            drawn = np.random.default_rng((seed, epoch, part)).permutation(count)[:rest]
            chosen.append(own[np.sort(drawn)] + whole * self.images)
            start += count
        return np.concatenate(chosen).astype(self.dtype)

    def _by_shards(self, rng: np.random.Generator) -> np.ndarray:
        ends = (*self.shards[1:], self.images)
        order = rng.permutation(len(self.shards))
        groups = []
        for first in range(0, len(order), self.together):
            shards = order[first : first + self.together]
            group = np.concatenate([np.arange(self.shards[i], ends[i], dtype=self.dtype) for i in shards])
            rng.shuffle(group)
            groups.append(group)
        return np.concatenate(groups)
