"""Score predicted label maps: confusion matrices, and the metrics that follow from them.

Shapes: K classes; H × W pixels; h × w cells.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixbench.errors import UserError
from transfer.datasets.mask_numbers import IGNORED
from transfer.frozen.limits import need
from transfer.frozen.views import Views, resized_labels

ScoreAt = Literal["full", "input"] | int
"""Resolution at which label maps are compared: that of the picture, that of the input, or a square of so many pixels."""
TEST_PICTURES = "the test pictures"


def held_out_pictures(one_in: int) -> str:
    """Return what messages call the training pictures that hyperparameters are chosen on."""
    return f"the held-out training pictures (one in {one_in}: settings.held_out)"


def need_score_at(settings: object) -> None:
    """Raise ValueError if ``settings.score_at`` is no resolution."""
    need(settings, "score_at", least=1, words="full, input, or ")


class Confusion:
    """Number of pixels of each (label, prediction): ``counts`` (K, K) int64. Ignored pixels do not count.

    ``each`` has those of each call of `add`: the pairs that occur, as label · K + prediction, and their counts.
    """

    def __init__(self, classes: int) -> None:
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)
        self.each: list[tuple[Tensor, Tensor]] = []

    def add(self, labels: Tensor | np.ndarray, predicted: Tensor) -> None:
        """Count the pixels of a label map and a prediction of the same shape, those of one picture."""
        labels, classes = torch.as_tensor(labels).flatten().long(), len(self.counts)
        known = labels != IGNORED
        pairs = labels[known] * classes + predicted.flatten().cpu().long()[known]
        counts = torch.bincount(pairs, minlength=classes**2)  # much faster than sorting all pixels
        occur = counts.nonzero().flatten()
        self.add_pairs(occur, counts[occur])

    def add_pairs(self, pairs: Tensor, counts: Tensor) -> None:
        """Count pairs (P,) of one picture that differ, label · K + prediction, with their numbers of pixels (P,)."""
        self.each.append((pairs, counts))
        self.counts.view(-1)[pairs] += counts

    def areas(self) -> tuple[np.ndarray, ...]:
        """Return the areas (I, K) of intersection, union and label of each picture, in pixels."""
        classes = len(self.counts)
        right, label, guess = torch.zeros(3, len(self.each), classes, dtype=torch.int64)
        for index, (pairs, counts) in enumerate(self.each):
            truth, found = pairs // classes, pairs % classes
            label[index].index_add_(0, truth, counts)
            guess[index].index_add_(0, found, counts)
            right[index].index_add_(0, truth[truth == found], counts[truth == found])
        return right.numpy(), (label + guess - right).numpy(), label.numpy()

    def iou(self) -> Tensor:
        """Return the IoU of each class (K,) float64, in per cent; NaN for a class that is neither labelled nor predicted."""
        right = self.counts.diag().double()
        return 100 * right / (self.counts.sum(0) + self.counts.sum(1) - right)

    def metrics(self, absent_counts: bool = False, pictures: str = TEST_PICTURES) -> dict[str, float]:
        """Return "mIoU" and "aAcc" in per cent.

        A class that is neither labelled nor predicted is left out of the mean or, if ``absent_counts``, has an IoU of 0. An error
        says whose pixels they are by the words ``pictures``.

        Raises:
            UserError: no pixel was labelled.
        """
        if not self.counts.sum():
            raise UserError(f"{pictures} have no labelled pixel, so there is nothing to score; check their label maps")
        iou = self.iou()
        mean = iou.nan_to_num(0).mean() if absent_counts else iou.nanmean()
        return {"mIoU": mean.item(), "aAcc": (100 * self.counts.diag().sum().double() / self.counts.sum()).item()}


def labels_to_score(views: Views, index: int, score_at: ScoreAt) -> np.ndarray:
    """Return the label map of picture ``index`` at the resolution ``score_at``."""
    if score_at == "input":
        return views.labels(index)
    labels = views.scenes.label_map(index)
    return labels if score_at == "full" else resized_labels(labels, (score_at, score_at))


def predicted(shares: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the class with the largest share at each pixel: (h, w, K) -> (H, W), interpolated bilinearly."""
    planes = shares.permute(2, 0, 1)[None].float()
    return F.interpolate(planes, size=shape, mode="bilinear", align_corners=False)[0].argmax(0)
