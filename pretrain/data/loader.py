"""Load batches of views. They do not depend on the number of workers, processes or restarts.

Shapes: B images in this process's part of a batch, S view size.

The images of a batch follow from (seed, epoch). The crops and colours of an image follow from (seed, epoch, index). Nothing
else is random, so a run can start at any step and get the same batches as an uninterrupted run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixbench.distributed import any_process
from pixbench.errors import UserError, worker_deaths_explained
from pixbench.interrupt import StopSignal, shielded
from pretrain.data import pil
from pretrain.data.augment import MEAN, RECIPES, STD, Recipe
from pretrain.data.sources import Source
from pretrain.data.views import Box, Views, draw_views
from pretrain.data.waiting import Timed

SampleId = tuple[int, int]
"""(epoch, index): a sample depends on these two numbers (and on the seed)."""


@dataclass(frozen=True)
class Sample:
    """Two views (S, S, 3) uint8 of one image, the two boxes, and the label and index of the image."""

    view1: np.ndarray
    view2: np.ndarray
    box1: Box
    box2: Box
    label: int
    index: int


class TwoViews(Dataset):
    """Dataset of samples with two views, indexed by (epoch, index)."""

    def __init__(
        self, source: Source, *, size: int, scale: tuple[float, float], recipe: Recipe, seed: int, cache: bool
    ):
        self.source, self.size, self.scale, self.seed = source, size, scale, seed
        self.recipe = RECIPES[recipe]
        # Images are decoded before the workers are forked, so that all workers share the memory.
        indices = [source.present(index) for index in range(len(source))] if cache else []
        self.decoded = [np.asarray(source.load(index)) for index in indices]

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, epoch: int, index: int) -> Sample:
        """Return the sample of image ``index`` in epoch ``epoch``. A stand-in has the crops of the image it is taken for."""
        rng = random.Random(f"{self.seed}/{epoch}/{index}")
        index = self.source.present(index)
        image = self.decoded[index] if self.decoded else np.asarray(self.source.load(index))
        plans = draw_views(rng, self.recipe, image.shape[1], image.shape[0], self.scale)
        view1, view2 = (pil.render(image, plan, self.size) for plan in plans)
        return Sample(view1, view2, plans[0].box, plans[1].box, self.source.labels[index], index)

    def __getitem__(self, sample_id: SampleId) -> Sample | UserError:
        """Return the sample. The error of a broken image is returned too, as a raised error would get a worker's traceback."""
        try:
            return self.sample(*sample_id)
        except UserError as error:
            return error


class Batches:
    """Yield the sample ids of batches ``first``, ``first + 1``, ..., ``last - 1`` of a whole run: this process's part of each.

    An epoch is a permutation of all images, split into full batches; the remaining images are dropped. Batch b holds the same
    images for any number of processes: process r of n takes every n-th image, starting with image r.
    """

    def __init__(
        self, images: int, batch_size: int, *, seed: int, first: int, last: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size % world:
            raise UserError(
                f"batch_size {batch_size} cannot be divided among {world} processes; set it to a multiple of {world}"
            )
        if images < batch_size:
            raise UserError(f"there are {images} images but batch_size is {batch_size}; lower batch_size or add images")
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.first, self.last, self.rank, self.world = first, last, rank, world

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.images // self.batch_size

    def order(self, epoch: int) -> list[int]:
        """Return the indices of all images in the order of epoch ``epoch``."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.images).tolist()

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[SampleId]]:
        order, order_epoch = [], -1
        for batch in range(self.first, self.last):
            epoch, place = divmod(batch, self.per_epoch)
            if epoch != order_epoch:
                order, order_epoch = self.order(epoch), epoch
            whole = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield [(epoch, index) for index in whole[self.rank :: self.world]]


def collate(samples: list[Sample | UserError]) -> Views | UserError:
    """Combine samples into one batch, or return the first error in ``samples``.

    The images get the memory format channels_last, because their pixels are stored in this order.
    """
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
    """Convert B arrays (S, S, 3) uint8 to (B, 3, S, S) float32: scale to 0..1, subtract `MEAN`, divide by `STD`."""
    images = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    return images.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


class ViewLoader:
    """Iterate over the `Views` of ``batches``. A broken image raises its `UserError`, also when a worker reads it."""

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
        self._loader = Timed(shielded(loader))

    @property
    def waited(self) -> float:
        """Seconds that the caller has waited for batches so far."""
        return self._loader.seconds

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Views]:
        for views in self._loader:
            if isinstance(views, UserError):
                raise views
            yield views


def agreed(loader: ViewLoader, stop: StopSignal) -> Iterator[Views]:
    """Yield the batches of ``loader``. If one process receives a stop signal or a broken image, all stop at the same step.

    Otherwise, the other processes would wait forever in the next exchange of gradients.
    """
    iterator = iter(loader)
    while True:
        views, trouble = None, None
        try:
            with worker_deaths_explained():
                views = next(iterator, None)
        except UserError as error:
            trouble = error
        failed, stop.agreed = any_process(trouble is not None, stop.asked_at > 0)
        if failed:
            raise trouble or UserError(
                "another process stopped with an error, so this one stops too; look for the error of that process in this output"
            )
        if views is None:
            return
        yield views
