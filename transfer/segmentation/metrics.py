"""MMSegmentation's IoUMetric, extended by the IoU of each class and of all objects.

Shapes: a label map has H × W pixels and K classes; label 255 is ignored.
"""

from __future__ import annotations

from typing import Any

import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

FIRST_OBJECT = {"CityscapesDataset": 11, "PascalVOCDataset": 1}
"""First label of the countable objects (person to bicycle; all but background), for data sets where they come last."""


@METRICS.register_module()
class ObjectIoU(IoUMetric):
    """IoUMetric with the IoU of each class and of objects against the rest; mIoU, aAcc and mAcc do not change.

    Args:
        first_object: first label of the objects; None if they do not come last, and "fgIoU" is not measured.
        options: those of IoUMetric.
    """

    def __init__(self, first_object: int | None, **options: Any) -> None:
        super().__init__(**options)
        self.first_object = first_object

    def intersect_and_union(
        self, pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int
    ) -> tuple[Tensor, ...]:
        """Return the areas of intersection, union, prediction and truth of two label maps (H, W).

        Each has shape (K + 1,): one area per class, and last that of all objects.
        """
        classes = IoUMetric.intersect_and_union(pred_label, label, num_classes, ignore_index)
        first = num_classes if self.first_object is None else self.first_object
        guess, truth = ((labels >= first).to(labels.dtype) for labels in (pred_label, label))
        truth[label == ignore_index] = ignore_index
        objects = IoUMetric.intersect_and_union(guess, truth, 2, ignore_index)
        return tuple(torch.cat([area, extra[1:]]) for area, extra in zip(classes, objects, strict=True))

    def compute_metrics(self, results: list[tuple[Tensor, ...]]) -> dict[str, float]:
        """Return IoUMetric's metrics, the IoU of each class and, as "fgIoU", that of objects, in percent.

        An IoU is NaN for what is neither in a label map nor predicted; IoUMetric's means leave it out.
        """
        metrics = super().compute_metrics([tuple(area[:-1] for area in areas) for areas in results])
        intersect, union = (torch.stack([areas[i] for areas in results]).sum(0) for i in (0, 1))
        iou = (100 * intersect / union).tolist()  # NaN: 0 / 0
        names = [f"IoU/{name}" for name in self.dataset_meta["classes"]]
        objects = {} if self.first_object is None else {"fgIoU": iou[-1]}
        return {**metrics, **objects, **dict(zip(names, iou[:-1], strict=True))}
