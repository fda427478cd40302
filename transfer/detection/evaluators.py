"""Detectron2's own evaluators, as each data set and today's numpy want them."""

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
"""Names of numpy 1 that lvis (0.5.3) and cityscapesscripts (2.3.0) still call."""


@contextmanager
def old_numpy() -> Iterator[None]:
    """Give numpy those of `OLD_NUMPY_NAMES` that it lacks while the block runs."""
    lacking = {name: value for name, value in OLD_NUMPY_NAMES.items() if not hasattr(np, name)}
    vars(np).update(lacking)
    try:
        yield
    finally:
        for name in lacking:
            delattr(np, name)


def evaluator(cfg: CfgNode, dataset_name: str, folder: str) -> DatasetEvaluator:
    """The one for the data set; predictions go into ``folder``.

    The tasks are named, because Detectron2 would infer them from the predictions, of which there may be none.
    """
    evaluator_type = MetadataCatalog.get(dataset_name).evaluator_type
    if evaluator_type == "pascal_voc":
        return VocEvaluator(dataset_name)
    if evaluator_type == "cityscapes_instance":
        return CityscapesEvaluator(dataset_name)
    chosen = {"bbox": True, "segm": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
    tasks = tuple(task for task, wanted in chosen.items() if wanted)
    return (LVISEvaluator if evaluator_type == "lvis" else COCOEvaluator)(dataset_name, tasks, output_dir=folder)


class VocEvaluator(PascalVOCDetectionEvaluator):
    """Detectron2's, averaged over the classes that the test set has: all 20 in VOC 2007, fewer in the mini world.

    A class without any object gets AP 0 from Detectron2, where COCO's evaluation leaves it out.
    """

    def evaluate(self) -> dict[str, dict[str, float]] | None:
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
    """Detectron2's, without the ``matches.json`` that cityscapesscripts leaves in the current folder and cannot always write."""

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        evalInstanceLevelSemanticLabeling.writeDict2JSON = lambda *_: None
        with old_numpy():
            results: dict[str, dict[str, float]] | None = super().evaluate()
        return results


class LvisEvaluator(LVISEvaluator):
    """Detectron2's, with today's numpy."""

    def evaluate(self) -> Any:
        with old_numpy():
            return super().evaluate()
