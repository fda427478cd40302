"""Load batches of views. They do not depend on the number of workers, processes or restarts.

Shapes: B images in this process's part of a batch, S view size.

The images of a batch follow from (seed, epoch). The crops and colours of an image follow from (seed, epoch, number), where the
number is that of the image in the epoch (`pretrain.data.order`). Nothing else is random, so a run can start at any step and get
the same batches as an uninterrupted run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pixbench.distributed import any_process, objects_of_all
from pixbench.errors import UserError, worker_deaths_explained
from pixbench.interrupt import StopSignal, shielded
from pretrain.data import pil
from pretrain.data.augment import MEAN, RECIPES, STD, Recipe
from pretrain.data.decoded import DecodedImages
from pretrain.data.order import EpochOrder
from pretrain.data.pixels import BrokenImage
from pretrain.data.sources import Source
from pretrain.data.views import Box, Views, draw_views
from pretrain.data.waiting import Timed

SampleId = tuple[int, int]
"""(epoch, number): a sample depends on these two numbers (and on the seed); the image is that of `EpochOrder`."""


@dataclass(frozen=True)
class Sample:
    """Two views (S, S, 3) uint8 of one image, the two boxes, and the label and index of the image."""

    view1: np.ndarray
    view2: np.ndarray
    box1: Box
    box2: Box
    label: int
    index: int
    skipped: Mapping[int, str] = field(default_factory=dict)
    """Index of each broken image for which this one is taken -> what is wrong with it."""


class TooManyBroken(UserError):
    """Too many images in a row are broken; ``skipped`` holds the index of each and what is wrong with it."""

    def __init__(self, skipped: dict[int, str]) -> None:
        super().__init__(f"{len(skipped)} images in a row are broken")
        self.skipped = skipped

    def __reduce__(self) -> tuple[type[TooManyBroken], tuple[dict[int, str]]]:
        return TooManyBroken, (self.skipped,)


class TwoViews(Dataset):
    """Dataset of samples with two views, indexed by (epoch, number), see `pretrain.data.order`.

    A broken image is replaced by the next one that is not, with the crops and colours of the broken one, so that the batches do
    not depend on when it broke. More than ``most_skipped`` in a row are an error; with 0, the first one is.
    """

    def __init__(
        self,
        source: Source,
        *,
        size: int,
        scale: tuple[float, float],
        recipe: Recipe,
        seed: int,
        cache: bool,
        most_skipped: int = 0,
    ):
        self.source, self.size, self.scale, self.seed = source, size, scale, seed
        self.recipe, self.most_skipped = RECIPES[recipe], most_skipped
        self.decoded = DecodedImages(len(source), self._decode) if cache else None  # before the workers are forked

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, epoch: int, number: int) -> Sample:
        """Return the sample with this number in epoch ``epoch``. A stand-in has the crops of the image it is taken for.

        Raises:
            TooManyBroken: There are too many broken images in a row, or no others.
        """
        index, skipped = number % len(self.source), dict[int, str]()
        while True:
            index = self.source.present(index)
            try:
                return replace(self._views(epoch, number, index), skipped=skipped)
            except BrokenImage as error:
                if not self.most_skipped:
                    raise
                if index in skipped or len(skipped) == self.most_skipped:
                    raise TooManyBroken(skipped | {index: error.reason}) from error
                skipped[index] = error.reason
            index = (index + 1) % len(self.source)

    def _views(self, epoch: int, number: int, index: int) -> Sample:
        rng = random.Random(f"{self.seed}/{epoch}/{number}")
        image = self.decoded[index] if self.decoded is not None else self._decode(index)
        plans = draw_views(rng, self.recipe, image.shape[1], image.shape[0], self.scale)
        view1, view2 = (pil.render(image, plan, self.size) for plan in plans)
        return Sample(view1, view2, plans[0].box, plans[1].box, self.source.label(index), index)

    def _decode(self, index: int) -> np.ndarray:
        return np.asarray(self.source.load(index))

    def __getitem__(self, sample_id: SampleId) -> Sample | UserError:
        """Return the sample. The error of a broken image is returned too, as a raised error would get a worker's traceback."""
        try:
            return self.sample(*sample_id)
        except UserError as error:
            return error


class Batches:
    """Yield the sample ids of batches ``first``, ``first + 1``, ..., ``last - 1`` of a whole run: this process's part of each.

    An epoch is split into full batches; the remaining images are dropped. Batch b holds the same images for any number of
    processes: process r of n takes every n-th image, starting with image r.
    """

    def __init__(
        self, order: EpochOrder, batch_size: int, *, seed: int, first: int, last: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size % world:
            raise UserError(
                f"batch_size {batch_size} cannot be divided among {world} processes; set it to a multiple of {world}"
            )
        if len(order) < batch_size:
            raise UserError(
                f"there are {len(order)} images but batch_size is {batch_size}; lower batch_size or add images"
            )
        self.order, self.batch_size, self.seed = order, batch_size, seed
        self.first, self.last, self.rank, self.world = first, last, rank, world

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return len(self.order) // self.batch_size

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[SampleId]]:
        numbers, numbers_epoch = np.empty(0), -1
        for batch in range(self.first, self.last):
            epoch, place = divmod(batch, self.per_epoch)
            if epoch != numbers_epoch:
                numbers, numbers_epoch = self.order.numbers(self.seed, epoch), epoch
            whole = numbers[place * self.batch_size : (place + 1) * self.batch_size]
            yield [(epoch, number) for number in whole[self.rank :: self.world].tolist()]


def collate(samples: list[Sample | UserError]) -> tuple[Views, dict[int, str]] | UserError:
    """Combine samples into one batch and the broken images that it does without, or return the first error in ``samples``.

    The images get the memory format channels_last, because their pixels are stored in this order.
    """
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        good.append(sample)
    views = Views(
        normalise([sample.view1 for sample in good]),
        normalise([sample.view2 for sample in good]),
        torch.tensor([sample.box1 for sample in good], dtype=torch.float32),
        torch.tensor([sample.box2 for sample in good], dtype=torch.float32),
        torch.tensor([sample.label for sample in good]),
        torch.tensor([sample.index for sample in good]),
    )
    return views, {index: reason for sample in good for index, reason in sample.skipped.items()}


def normalise(views: Sequence[np.ndarray]) -> Tensor:
    """Convert B arrays (S, S, 3) uint8 to (B, 3, S, S) float32: scale to 0..1, subtract `MEAN`, divide by `STD`."""
    images = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).to(torch.float32).div_(255)
    return images.sub_(torch.tensor(MEAN).view(3, 1, 1)).div_(torch.tensor(STD).view(3, 1, 1))


class ViewLoader:
    """Iterate over the `Views` of ``batches``. An error of an image is raised here, also when a worker reads it."""

    def __init__(self, dataset: TwoViews, batches: Batches, *, workers: int = 0, pin_memory: bool = False) -> None:
        self.batches = batches
        self.skipped: dict[int, str] = {}
        """The broken images that others replace in the last batch: the index of each, and what is wrong with it."""
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
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            views, self.skipped = batch
            yield views


def agreed(loader: ViewLoader, stop: StopSignal) -> Iterator[tuple[Views | None, dict[int, str]]]:
    """Yield the batches of ``loader``, each with the broken images of all processes: the index and what is wrong with it.

    There are no views if too many images in a row are broken in a process. If one process receives a stop signal or an error, all
    stop at the same step. Otherwise, the other processes would wait forever in the next exchange of gradients.
    """
    iterator = iter(loader)
    while True:
        views, trouble, skipped, over = None, None, dict[int, str](), False
        try:
            with worker_deaths_explained():
                views = next(iterator, None)
            over, skipped = views is None, loader.skipped
        except TooManyBroken as error:
            skipped = error.skipped
        except UserError as error:
            trouble = error
        none = views is None and not over and trouble is None
        failed, stop.agreed, some, none = any_process(
            trouble is not None, stop.asked_at > 0, bool(skipped) and not over, none
        )
        if failed:
            raise trouble or UserError(
                "another process stopped with an error, so this one stops too; look for the error of that process in this output"
            )
        if over:
            return
        if some:
            skipped = {index: reason for found in objects_of_all(skipped) for index, reason in found.items()}
        yield None if none else views, dict(sorted(skipped.items()))
