"""Detectron2's evaluators, adapted to each data set and to current versions of numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    COCOEvaluator,
    DatasetEvaluator,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
)
from detectron2.evaluation.pascal_voc_evaluation import parse_rec

OLD_NUMPY_NAMES = {"float": float, "in1d": np.isin}
"""Names of numpy 1 that lvis (0.5.3) and cityscapesscripts (2.3.0) still use."""


@contextmanager
def old_numpy() -> Iterator[None]:
    """Add the names of `OLD_NUMPY_NAMES` that numpy lacks, while the block runs."""
    lacking = {name: value for name, value in OLD_NUMPY_NAMES.items() if not hasattr(np, name)}
    vars(np).update(lacking)
    try:
        yield
    finally:
        for name in lacking:
            delattr(np, name)


def evaluator(cfg: CfgNode, dataset_name: str, folder: str) -> DatasetEvaluator:
    """Return the evaluator of a data set; it writes predictions to ``folder``.

    The tasks are given explicitly, because Detectron2 would infer them from the predictions, and there may be none.
    """
    evaluator_type = MetadataCatalog.get(dataset_name).evaluator_type
    if evaluator_type == "pascal_voc":
        return VocEvaluator(dataset_name)
    if evaluator_type == "cityscapes_instance":
        return CityscapesEvaluator(dataset_name)
    chosen = {"bbox": True, "segm": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
    tasks = tuple(task for task, wanted in chosen.items() if wanted)
    return (LvisEvaluator if evaluator_type == "lvis" else COCOEvaluator)(dataset_name, tasks, output_dir=folder)


class VocEvaluator(PascalVOCDetectionEvaluator):
    """Detectron2's VOC evaluator, averaged over the classes in the test set.

    These are all 20 in VOC 2007, and fewer in the mini world. Detectron2 gives AP 0 to a class without any object;
    COCO's evaluation leaves such a class out.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return the averages and the number of classes in the test set; None except on rank 0."""
        results: dict[str, dict[str, float]] | None = super().evaluate()
        if results is None:  # not rank 0
            return None
        names = Path(self._image_set_path).read_text(encoding="utf-8").split()
        objects = [thing for name in names for thing in parse_rec(self._anno_file_template.format(name))]
        present = {thing["name"] for thing in objects if not thing["difficult"]} & set(self._class_names)
        fraction = len(present) / len(self._class_names)
        averaged = {name: value / fraction if fraction else math.nan for name, value in results["bbox"].items()}
        return {"bbox": {**averaged, "classes": len(present)}}


class CityscapesEvaluator(CityscapesInstanceEvaluator):
    """Detectron2's Cityscapes evaluator, without ``matches.json``.

    cityscapesscripts writes this file to the current folder, which may be read-only.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return Detectron2's metrics."""
        evalInstanceLevelSemanticLabeling.writeDict2JSON = lambda *_: None
        with old_numpy():
            results: dict[str, dict[str, float]] | None = super().evaluate()
        return results


class LvisEvaluator(LVISEvaluator):
    """Detectron2's LVIS evaluator, for current versions of numpy."""

    def evaluate(self) -> Any:
        """Return Detectron2's metrics."""
        with old_numpy():
            return super().evaluate()
