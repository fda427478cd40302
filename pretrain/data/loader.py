"""Load batches of views. They do not depend on the number of workers, processes or restarts.

Shapes: B images in this process's part of a batch, S view size.

The images of a batch follow from (seed, epoch). The crops and colours of an image follow from (seed, epoch, number), where the
number is that of the image in the epoch (`pretrain.data.order`). Nothing else is random, so a run can start at any step and get
the same batches as an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pixbench.distributed import any_process, objects_of_all
from pixbench.errors import OtherProcessStopped, UserError, worker_deaths_explained
from pixbench.interrupt import SaveSignal, StopSignal, shielded
from pretrain.data.batched import packed
from pretrain.data.in_flight import PREFETCH
from pretrain.data.order import EpochOrder
from pretrain.data.two_views import Sample, SampleId, TooManyBroken, TwoViews
from pretrain.data.views import Views
from pretrain.data.waiting import Timed


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

    The images are still uint8: a quarter of the bytes to hand over, and to copy to a GPU. `pretrain.step` normalises them.
    """
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
        good.append(sample)
    views = Views(
        _images([sample.view1 for sample in good]),
        _images([sample.view2 for sample in good]),
        torch.tensor([sample.box1 for sample in good], dtype=torch.float32),
        torch.tensor([sample.box2 for sample in good], dtype=torch.float32),
        torch.tensor([sample.label for sample in good]),
        torch.tensor([sample.index for sample in good]),
        _rows(good),
        _local(good),
    )
    return views, {index: reason for sample in good for index, reason in sample.skipped.items()}


def _images(views: Sequence[np.ndarray]) -> Tensor:
    """Return B arrays (S, S, 3) as one tensor (B, 3, S, S), whose pixels stay next to their channels in memory."""
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


def _local(samples: Sequence[Sample]) -> Tensor | None:
    """Return the local crops (B, L, 3, s, s); None if there are none."""
    crops = [crop for sample in samples for crop in sample.local]
    return _images(crops).unflatten(0, (len(samples), -1)) if crops else None


def _rows(samples: Sequence[Sample]) -> Tensor | None:
    """Return what is still to be changed in the views and local crops, (B, 2 + L, 11), see `pretrain.data.batched.packed`."""
    drawn = [sample.changes for sample in samples if sample.changes is not None]
    return torch.stack([packed(of_view) for of_view in zip(*drawn, strict=True)], dim=1) if drawn else None


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
            prefetch_factor=PREFETCH if workers else None,
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


def agreed(
    loader: ViewLoader, stop: StopSignal, save: SaveSignal, check: Callable[[], None]
) -> Iterator[tuple[Views | None, dict[int, str]]]:
    """Yield the batches of ``loader``, each with the broken images of all processes: the index and what is wrong with it.

    There are no views if too many images in a row are broken in a process. If one process receives a signal to stop or to save,
    or an error, also one of ``check``, all heed it before the same step. Otherwise, the other processes would wait forever in
    the next exchange of gradients.
    """
    iterator = iter(loader)
    while True:
        views, trouble, skipped, over = None, None, dict[int, str](), False
        try:
            check()
            with worker_deaths_explained():
                views = next(iterator, None)
            over, skipped = views is None, loader.skipped
        except TooManyBroken as error:
            skipped = error.skipped
        except UserError as error:
            trouble = error
        none = views is None and not over and trouble is None
        failed, stop.agreed, save.agreed, some, none = any_process(
            trouble is not None, stop.asked_at > 0, save.take(), bool(skipped) and not over, none
        )
        if failed:
            raise trouble or OtherProcessStopped()
        if over:
            return
        if some:
            skipped = {index: reason for found in objects_of_all(skipped) for index, reason in found.items()}
        yield None if none else views, dict(sorted(skipped.items()))
