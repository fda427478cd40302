"""Evaluate the backbone by its nearest neighbours while it trains.

Half of a fixed sample of the training images is classified by the other half. The evaluation changes nothing of the training:
weights, statistics of batch norm and random numbers stay as they are.

Shapes: n images of the sample, B images at once, C channels of C5, S view size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset

from pixbench.distributed import all_gather_cat, any_process, rank, world_size
from pixbench.errors import UserError, explain
from pixbench.interrupt import shielded
from pretrain.data.augment import MEAN, STD
from pretrain.data.centre_crops import Crops
from pretrain.data.views import Views
from pretrain.knn import knn, top1
from pretrain.log.screen import tell
from pretrain.run import Run
from pretrain.step import PRECISIONS
from pretrain.watcher import Watcher

MOST = 5000
"""Largest number of images in the sample."""
EACH = 50
"""Largest number of images of one class in the sample."""
BATCH = 64

T = TypeVar("T")


class OnlineKNN(Watcher):
    """Add "knn" (accuracy in per cent) and "knn_s" (seconds it took) to the values of a step, every `log.knn_every` epochs.

    Every process must call it, because each computes the features of its part of the sample.
    """

    def __init__(self, run: Run) -> None:
        self._indices, self._labels = balanced_sample(run.source.labels)
        self._classes = len(set(self._labels))
        if self._classes < 2 and rank() == 0:
            tell("no k-NN accuracy will be measured: it needs two classes with two labelled images each")

    def after_step(self, run: Run, views: Views, values: dict[str, Any]) -> None:
        """Evaluate the backbone if it is due."""
        if self._classes < 2 or run.step % (run.steps_per_epoch * run.config.log.knn_every):
            return
        began = time.monotonic()
        try:
            features, readable = embed(run, self._indices)
        except EvaluationFailed as error:
            run.aside += time.monotonic() - began
            if rank() == 0:
                tell(f"epoch {run.step // run.steps_per_epoch}: no k-NN accuracy ({error}); the run goes on")
            return
        labels = torch.tensor(self._labels, device=features.device)
        known, asked = readable.clone(), readable.clone()
        known[1::2], asked[::2] = False, False
        predicted = knn(features[known], labels[known], features[asked], self._classes)
        values["knn"], values["knn_s"] = top1(predicted, labels[asked]), time.monotonic() - began
        run.aside += values["knn_s"]
        if rank() == 0:
            epoch, chance = run.step // run.steps_per_epoch, 100 / self._classes
            tell(
                f"epoch {epoch}: k-NN accuracy {values['knn']:.1f} % (chance: {chance:.1f} %) on {len(labels)} training images, "
                f"{values['knn_s']:.1f} s"
            )


def balanced_sample(labels: Sequence[int] | np.ndarray) -> tuple[list[int], list[int]]:
    """Return indices of images and their classes, counted from 0: as many images of each class, if it has so many.

    There are at most `EACH` images a class and about `MOST` in all, spread evenly over the classes and over the images of a
    class. Images without a label (−1) and classes of one image are left out. The images of a class follow one another, an even
    number of them, so that every other image of the sample makes two halves with the same classes.
    """
    known = np.asarray(labels)
    order = np.argsort(known, kind="stable")
    order = order[known[order] >= 0]
    groups = np.split(order, np.flatnonzero(np.diff(known[order])) + 1)
    groups = _thinned([group for group in groups if len(group) > 1], MOST // 2)
    each = min(EACH, MOST // max(1, len(groups)))
    indices, classes = [], []
    for label, group in enumerate(groups):
        chosen = _thinned(group.tolist(), min(each, len(group)) // 2 * 2)
        indices += chosen
        classes += [label] * len(chosen)
    return indices, classes


def _thinned(items: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` of ``items``, spread evenly."""
    return [items[i * len(items) // most] for i in range(most)] if len(items) > most else [*items]


@torch.no_grad()
def embed(run: Run, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return C5 averaged over its cells (n, C) float32, and whether each image could be read (n,) bool.

    Every process computes its part, with the statistics of batch norm of rank 0.

    Raises:
        EvaluationFailed: A process could not compute its part, for example because memory ran out. All processes raise it.
    """
    backbone, device, config = run.method.backbone, run.device, run.config
    buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    if world_size() > 1:
        for buffer in buffers.values():
            dist.broadcast(buffer, 0)
    share = -(-len(indices) // world_size())
    mine = [
        indices[i % len(indices)] for i in range(rank() * share, (rank() + 1) * share)
    ]  # the same number in each process
    loader: DataLoader[Any] = DataLoader(
        Readable(Crops(run.source, config.data.image_size), mine),
        batch_size=min(BATCH, config.batch_size),
        num_workers=config.data.workers,
        generator=torch.Generator(),  # otherwise it draws from the generator of the training
    )
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (MEAN, STD))
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    found, readable, trouble = [], [], ""
    try:
        for images, good in shielded(loader):
            images = (images.to(device).float() / 255 - mean) / std
            if config.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, PRECISIONS[config.precision], enabled=config.precision != "fp32"):
                maps = functional_call(backbone, buffers, (images,))
            found.append(maps.float().mean((2, 3)))
            readable.append(good.to(device))
    except (RuntimeError, MemoryError, OSError, UserError) as error:  # a run of days is worth more than this number
        trouble = explain(error)
    finally:
        for module, training in modes:
            module.training = training
    if any_process(bool(trouble))[0]:
        raise EvaluationFailed(trouble or "another process could not compute its part")
    both = all_gather_cat(torch.cat(found), grad=False), all_gather_cat(torch.cat(readable), grad=False)
    return both[0][: len(indices)], both[1][: len(indices)]


class EvaluationFailed(Exception):
    """The features could not be computed."""


class Readable(Dataset):
    """The ``crops`` of the images ``indices``, each with whether it can be read; zeros stand for one that cannot."""

    def __init__(self, crops: Crops, indices: list[int]) -> None:
        self._crops, self._indices = crops, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> tuple[Tensor, bool]:
        try:
            return self._crops[self._crops.source.present(self._indices[place])], True
        except UserError:
            return torch.zeros(3, self._crops.size, self._crops.size, dtype=torch.uint8), False
