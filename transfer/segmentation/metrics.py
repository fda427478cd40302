"""MMSegmentation's IoUMetric, extended by the IoU of each class, of all objects, and near boundaries.

Shapes: a label map has H × W pixels and K classes; label 255 is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from pretrain.data.pixels import decode
from transfer.boundaries import near_boundaries
from transfer.frozen.scoring import Confusion
from transfer.kept import Kept
from transfer.samples import SAMPLES, Choice, Sample, labelled, together

FIRST_OBJECT = {"CityscapesDataset": 11, "PascalVOCDataset": 1}
"""First label of the countable objects (person to bicycle; all but background), for data sets where they come last."""


@METRICS.register_module()
class ObjectIoU(IoUMetric):
    """IoUMetric with the IoU of each class, of objects against the rest, and near boundaries; its own metrics do not change.

    Args:
        first_object: first label of the objects; None if they do not come last, and "fgIoU" is not measured.
        options: those of IoUMetric.
    """

    def __init__(self, first_object: int | None, **options: Any) -> None:
        super().__init__(**options)
        self.collect_dir = options.get("collect_dir")  # which IoUMetric drops
        self.first_object = first_object
        self.kept = Kept()
        self._choice = Choice()

    def process(self, data_batch: dict[str, Any], data_samples: Sequence[dict[str, Any]]) -> None:
        """Compare label maps as IoUMetric does.

        Each comparison gets the name of its picture, the pairs of labels, those near boundaries and, if the picture may be
        kept, the picture with both maps.
        """
        before = len(self.results)
        super().process(data_batch, data_samples)
        for place, sample in enumerate(data_samples, before):
            guess, truth = (sample[name]["data"] for name in ("pred_sem_seg", "gt_sem_seg"))
            guess, truth = (labels.reshape(labels.shape[-2:]) for labels in (guess, truth.to(guess)))
            name = Path(sample["img_path"]).stem
            shown = _sample(sample["img_path"], truth, guess) if self._choice.wants(name) else None
            near = torch.from_numpy(near_boundaries(truth.cpu().numpy(), self.ignore_index)).to(guess)
            pairs = [self._pairs(guess, labels) for labels in (truth, near)]
            self.results[place] = (self.results[place], name, *pairs, shown)

    def _pairs(self, guess: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs that occur in two label maps, as label · K + prediction, and the number of pixels of each."""
        known = truth != self.ignore_index
        pairs, counts = (truth[known].long() * self._classes + guess[known].long()).unique(return_counts=True)
        return pairs.cpu(), counts.cpu()

    @property
    def _classes(self) -> int:
        return len(self.dataset_meta["classes"])

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

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Return IoUMetric's metrics, the IoU of each class, "boundary_mIoU" and, as "fgIoU", the IoU of objects, in percent.

        An IoU is NaN for what is neither in a label map nor predicted; IoUMetric's means leave it out. What belongs to single
        pictures and classes is put into ``kept``.
        """
        near = self._confusion(results, 3)
        self._keep(results, near)
        results = [areas for areas, *_ in results]
        metrics = super().compute_metrics([tuple(area[:-1] for area in areas) for areas in results])
        intersect, union = (torch.stack([areas[i] for areas in results]).sum(0) for i in (0, 1))
        iou = (100 * intersect / union).tolist()  # NaN: 0 / 0
        names = [f"IoU/{name}" for name in self.dataset_meta["classes"]]
        objects = {} if self.first_object is None else {"fgIoU": iou[-1]}
        return {
            **metrics,
            **objects,
            "boundary_mIoU": near.iou().nanmean().item(),
            **dict(zip(names, iou[:-1], strict=True)),
        }

    def _confusion(self, results: list[Any], place: int) -> Confusion:
        """Return the confusion matrices of the pairs that stand at ``place`` in each of ``results``."""
        confusion = Confusion(self._classes)
        for result in results:
            confusion.add_pairs(*result[place])
        return confusion

    def _keep(self, results: list[Any], near: Confusion) -> None:
        images, classes = [name for _, name, *_ in results], [*self.dataset_meta["classes"]]
        parts = [torch.stack([areas[i] for areas, *_ in results]).cpu().numpy() for i in (0, 1, 3)]
        self.kept = Kept()
        self.kept.add_areas(("mIoU", "aAcc", "mAcc"), images, classes, [area[:, :-1] for area in parts])
        if self.first_object is not None:
            self.kept.add_areas(("fgIoU",), images, ["objects"], [area[:, -1:] for area in parts], file="objects")
        self.kept.add_areas(("boundary_mIoU",), images, classes, near.areas(), file="boundaries")
        self.kept.add_confusion(self._confusion(results, 2).counts.numpy(), classes)
        samples = {name: sample for _, name, *_, sample in results if sample}
        colours = np.array(self.dataset_meta.get("palette") or (), np.uint8)
        self.kept.arrays[SAMPLES] = together(samples, classes=classes, colours=colours)


def _sample(path: str, truth: Tensor, guess: Tensor) -> Sample:
    return labelled(decode(Path(path).read_bytes(), path), *(labels.cpu().numpy() for labels in (truth, guess)))
