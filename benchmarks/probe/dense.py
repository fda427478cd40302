"""Dense linear probing: a 1×1 convolution on frozen C5, on a data set in the layout of Cityscapes.

Shapes: C channels, (h, w) cells of C5 at stride 16, (H, W) pixels, K = 19 classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmarks.probe.classify import fit_linear
from benchmarks.probe.features import Frozen
from pretrain.data.pixels import decode

CLASSES = 19
IGNORED = 255
CELLS = 256
"""Maximum number of cells drawn from each training image."""
OUTPUT_STRIDE = 16


@torch.inference_mode()
def _maps(model: Frozen, home: Path, split: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield C5 (1, C, h, w) and labels (H, W) int64 of each image at its own size, sorted by name."""
    for path in sorted((home / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
        label = path.name.replace("_leftImg8bit.png", "_gtFine_labelTrainIds.png")
        with Image.open(home / "gtFine" / split / path.parent.name / label) as image:
            labels = torch.from_numpy(np.asarray(image).astype(np.int64))
        maps = model(pil_to_tensor(decode(path.read_bytes(), str(path)))[None])
        yield maps, labels.to(maps.device)


def cell_labels(labels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the label of the middle pixel of each cell: (H, W) -> (h·w,)."""
    return F.interpolate(labels[None, None].double(), size=shape, mode="nearest-exact").long().flatten()


def dense_probe(model: Frozen, home: Path, seed: int) -> dict[str, float]:
    """Fit on the train split of ``home``; return mean IoU and pixel accuracy on the val split, in per cent.

    ``seed`` determines which cells are drawn: at most `CELLS` per training image. Both metrics cover all labelled
    pixels; the logits are interpolated bilinearly to the size of the images. Classes that are neither labelled nor
    predicted have no IoU and do not count in the mean.
    """
    generator = torch.Generator().manual_seed(seed)
    features, answers = [], []
    for maps, labels in _maps(model, home, "train"):
        answer = cell_labels(labels, (maps.shape[2], maps.shape[3]))
        usable = (answer != IGNORED).nonzero().flatten()
        chosen = usable[torch.randperm(len(usable), generator=generator)[:CELLS].to(usable.device)]
        features.append(maps[0].flatten(1).T[chosen])
        answers.append(answer[chosen])
    classifier = fit_linear(torch.cat(features), torch.cat(answers), CLASSES)
    confusion = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for maps, labels in _maps(model, home, "val"):
        logits = classifier.logits(maps[0].flatten(1).T).T.unflatten(1, maps.shape[2:])
        predicted = F.interpolate(logits[None], size=labels.shape, mode="bilinear", align_corners=False)[0].argmax(0)
        confusion += confusion_matrix(labels, predicted).cpu()
    return segmentation_metrics(confusion)


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
