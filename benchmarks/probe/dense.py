"""Dense linear probing: a 1×1 convolution on frozen C5, on a data set in the layout of Cityscapes.

Shapes: C channels, (h, w) cells of C5 at stride 16, (H, W) pixels, K = 19 classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmarks.probe.classify import Linear, fit_linear
from benchmarks.probe.features import Frozen, loader, room
from benchmarks.probe.parallel import by_first, gathered, in_turns
from pixbench.distributed import objects_of_all, rank, world_size
from pretrain.data.pixels import decode

CLASSES = 19
IGNORED = 255
CELLS = 256
"""Maximum number of cells drawn from each training image."""
OUTPUT_STRIDE = 16


class Scenes(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, H, W) and labels (H, W) of a split, both uint8, at their own size, sorted by name."""

    def __init__(self, home: Path, split: str) -> None:
        self._paths = sorted((home / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        self._labels = home / "gtFine" / split

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path = self._paths[index]
        label = path.name.replace("_leftImg8bit.png", "_gtFine_labelTrainIds.png")
        with Image.open(self._labels / path.parent.name / label) as image:
            labels = torch.from_numpy(np.array(image))
        return pil_to_tensor(decode(path.read_bytes(), str(path))), labels


@torch.inference_mode()
def _maps(model: Frozen, scenes: Scenes, workers: int) -> Iterator[tuple[Tensor, Tensor] | None]:
    """Yield C5 (1, C, h, w) and labels (H, W) int64 of every R-th image; None in a last turn without an image.

    In turn t, process r of R has image t · R + r.
    """
    mine = [[index] for index in range(rank(), len(scenes), world_size())]
    for scene in in_turns(loader(scenes, mine, itemgetter(0), workers, model.device), len(scenes)):
        yield None if scene is None else (model(scene[0][None]), scene[1].to(model.device).long())


def cell_labels(labels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the label of the middle pixel of each cell: (H, W) -> (h·w,)."""
    return F.interpolate(labels[None, None].double(), size=shape, mode="nearest-exact").long().flatten()


def dense_probe(model: Frozen, home: Path, seed: int, workers: int) -> dict[str, float]:
    """Fit on the train split of ``home``; return mean IoU and pixel accuracy on the val split, in per cent.

    ``seed`` determines which cells are drawn: at most `CELLS` per training image. Both metrics cover all labelled
    pixels; the logits are interpolated bilinearly to the size of the images. Classes that are neither labelled nor
    predicted have no IoU and do not count in the mean.

    Every process must call it. Each takes its share of the images; rank 0 fits the classifier, on its device.
    """
    classifier = _classifier(model, Scenes(home, "train"), seed, workers)
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for found in _maps(model, Scenes(home, "val"), workers):
        if found is not None:
            maps, labels = found
            logits = classifier.logits(maps[0].flatten(1).T).T.unflatten(1, maps.shape[2:])
            size = labels.shape
            predicted = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0].argmax(0)
            confusion += confusion_matrix(labels, predicted).cpu()
    return segmentation_metrics(torch.stack(objects_of_all(confusion)).sum(0))


def _classifier(model: Frozen, scenes: Scenes, seed: int, workers: int) -> Linear:
    """Return the classifier of the cells of ``scenes``, in every process; rank 0 fits it. Their features are gone then."""
    features, answers = _cells(model, scenes, seed, workers)
    return by_first(lambda: fit_linear(features, answers, CLASSES).to("cpu")).to(model.device)


def _cells(model: Frozen, scenes: Scenes, seed: int, workers: int) -> tuple[Tensor, Tensor]:
    """Return in rank 0 the features (n, C) and labels (n,) of the cells drawn from all ``scenes``; elsewhere nothing (n = 0)."""
    generator = torch.Generator().manual_seed(seed)
    features, filled = room(len(scenes) * CELLS, model), 0
    answers = torch.empty(len(features), dtype=torch.int64, device=model.device)
    for found in _maps(model, scenes, workers):
        part, answer = features.new_zeros(CELLS, features.shape[1]), answers.new_full((CELLS,), IGNORED)
        usable = answers.new_empty(0)
        if found is not None:
            maps, labels = found
            label = cell_labels(labels, (maps.shape[2], maps.shape[3]))
            usable = (label != IGNORED).nonzero().flatten()
        # all draw for all, in the order of the images, so that each draw is that of one process
        drawn = [torch.randperm(count, generator=generator)[:CELLS] for count in objects_of_all(len(usable))]
        if found is not None:
            chosen = usable[drawn[rank()].to(usable.device)]
            part[: len(chosen)], answer[: len(chosen)] = maps[0].flatten(1).T[chosen], label[chosen]
        for rows, names, count in zip(gathered(part), gathered(answer), map(len, drawn), strict=False):
            features[filled : filled + count], answers[filled : filled + count] = rows[:count], names[:count]
            filled += count
    return features[:filled], answers[:filled]


def confusion_matrix(labels: Tensor, predicted: Tensor) -> Tensor:
    """Return the number of pixels for each (label, prediction): (K, K)."""
    known = labels != IGNORED
    return torch.bincount(labels[known] * CLASSES + predicted[known], minlength=CLASSES**2).view(CLASSES, CLASSES)


def segmentation_metrics(confusion: Tensor) -> dict[str, float]:
    """Return mean IoU and pixel accuracy in per cent, from a confusion matrix (K, K)."""
    right = confusion.diag().double()
    union = confusion.sum(0) + confusion.sum(1) - right
    return {
        "dense_mIoU": 100 * (right / union)[union > 0].mean().item(),
        "dense_accuracy": 100 * (right.sum() / confusion.sum()).item(),
    }
