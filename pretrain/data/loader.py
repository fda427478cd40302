"""Batches of views, the same whatever the number of workers, processes or restarts.

Shapes: B images of this process's share of a batch, S view size.

Which images make up a batch follows from (seed, epoch); how an image is cropped and coloured follows from (seed, epoch,
index). Nothing else is random, so a run can start at any step and see what an uninterrupted one would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixbench.errors import UserError
from pixbench.interrupt import shielded
from pretrain.data.augment import MEAN, RECIPES, STD, Photometric
from pretrain.data.sources import Source
from pretrain.data.views import Box, Views, box_of, cut, random_crop, random_flip

Key = tuple[int, int]
"""(epoch, index): what a sample depends on."""


@dataclass(frozen=True)
class Sample:
    """Two views (S, S, 3) uint8 of one image, their boxes, its label and index."""

    view1: np.ndarray
    view2: np.ndarray
    box1: Box
    box2: Box
    label: int
    index: int


class TwoViews(Dataset):
    """Indexed by (epoch, index)."""

    def __init__(self, source: Source, *, size: int, scale: tuple[float, float], recipe: str, seed: int, cache: bool):
        self.source, self.size, self.scale, self.seed = source, size, scale, seed
        self.recipe = RECIPES[recipe]
        # Decoded before the workers are forked, so that all of them share the memory.
        self.decoded: list[Image.Image] | None = [source.load(i) for i in range(len(source))] if cache else None

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, epoch: int, index: int) -> Sample:
        image = self.decoded[index] if self.decoded else self.source.load(index)
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        (view1, box1), (view2, box2) = (self.view(image, photometric, rng) for photometric in self.recipe)
        return Sample(view1, view2, box1, box2, self.source.labels[index], index)

    def view(self, image: Image.Image, photometric: Photometric, rng: random.Random) -> tuple[np.ndarray, Box]:
        crop = random_flip(rng, random_crop(rng, image.width, image.height, self.scale))
        pixels = np.asarray(photometric(cut(image, crop, self.size), rng))
        return pixels, box_of(crop, image.width, image.height)

    def __getitem__(self, key: Key) -> Sample | UserError:
        """A broken image is handed back, not raised: from a worker it would arrive wrapped in a traceback."""
        try:
            return self.sample(*key)
        except UserError as error:
            return error


class Batches:
    """The keys of batches ``first``, ``first + 1``, ..., ``last - 1`` of a whole run, this process's share of each.

    An epoch is a permutation of all images cut into whole batches; what is left over is dropped. Batch b holds the same
    images whatever the number of processes: process r of n takes every n-th of them.
    """

    def __init__(
        self, images: int, batch_size: int, *, seed: int, first: int, last: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size % world:
            raise UserError(
                f"batch_size {batch_size} cannot be shared by {world} processes; make it a multiple of {world}"
            )
        if images < batch_size:
            raise UserError(f"there are {images} images but batch_size is {batch_size}; lower it or add images")
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.first, self.last, self.rank, self.world = first, last, rank, world

    @property
    def per_epoch(self) -> int:
        return self.images // self.batch_size

    def order(self, epoch: int) -> list[int]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.images).tolist()

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[Key]]:
        order, order_epoch = [], -1
        for batch in range(self.first, self.last):
            epoch, place = divmod(batch, self.per_epoch)
            if epoch != order_epoch:
                order, order_epoch = self.order(epoch), epoch
            whole = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield [(epoch, index) for index in whole[self.rank :: self.world]]


def collate(samples: list[Sample | UserError]) -> Views | UserError:
    """Samples -> one batch; images become channels_last, since their pixels come that way."""
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        good.append(sample)
    return Views(
        normalise([sample.view1 for sample in good]),
        normalise([sample.view2 for sample in good]),
        torch.tensor([sample.box1 for sample in good], dtype=torch.float32),
        torch.tensor([sample.box2 for sample in good], dtype=torch.float32),
        torch.tensor([sample.label for sample in good]),
        torch.tensor([sample.index for sample in good]),
    )


def normalise(views: Sequence[np.ndarray]) -> Tensor:
    """B arrays (S, S, 3) uint8 -> (B, 3, S, S) float32: to 0..1, minus `MEAN`, divided by `STD`."""
    images = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    return images.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


class ViewLoader:
    """Iterates over the `Views` of ``batches``; a broken image that a worker meets arrives as its one sentence."""

    def __init__(self, dataset: TwoViews, batches: Batches, *, workers: int = 0, pin_memory: bool = False) -> None:
        self.batches = batches
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            prefetch_factor=4 if workers else None,
        )
        self._loader = shielded(loader)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Views]:
        for views in self._loader:
            if isinstance(views, UserError):
                raise views
            yield views
