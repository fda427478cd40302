"""Detectron2's evaluators, adapted to each data set and to current versions of numpy."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
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
    pascal_voc_evaluation,
)
from detectron2.utils import comm
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode

from pixbench.errors import UserError
from transfer.datasets import voc
from transfer.datasets.classes import Classes
from transfer.datasets.layout import read_list
from transfer.datasets.report import Report
from transfer.detection.datasets import voc_id
from transfer.detection.matches import VocMatches, by_class, of_coco
from transfer.kept import Kept

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


@contextmanager
def replaced(module: Any, **values: Any) -> Iterator[None]:
    """Give names of ``module`` other values while the block runs."""
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)


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
    return (LvisEvaluator if evaluator_type == "lvis" else CocoEvaluator)(dataset_name, tasks, output_dir=folder)


class VocEvaluator(PascalVOCDetectionEvaluator):
    """Detectron2's VOC evaluator on annotations that `transfer.datasets.voc` reads, averaged over the classes in the test set.

    These are all 20 in VOC 2007, and fewer in the mini world. Detectron2 gives AP 0 to a class without any object;
    COCO's evaluation leaves such a class out.
    """

    def __init__(self, dataset_name: str) -> None:
        super().__init__(dataset_name)
        about = MetadataCatalog.get(dataset_name)
        self._classes = Classes(tuple(about.thing_classes), "")
        self._names = read_list(Path(about.dirname, "ImageSets", "Main", f"{about.split}.txt"))
        self._anno_file_template = "{}"  # `_objects` gets the image id
        self._class_names = [str(number) for number in range(len(self._classes))]  # names of files
        self.kept = Kept()

    def _objects(self, image_id: str) -> list[dict[str, Any]]:
        """Return the objects of an image in the form of Detectron2's `parse_rec`, with the number of the class as its name."""
        return self._found[image_id]

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return the averages and the number of classes in the test set; None except on rank 0."""
        home = Path(MetadataCatalog.get(self._dataset_name).dirname)
        self._found = {voc_id(name): self._read(home / "Annotations" / f"{name}.xml") for name in self._names}
        absent = np.errstate(divide="ignore", invalid="ignore")  # classes without any object
        gathered = comm.gather(self._predictions, dst=0)  # type: ignore[has-type]
        predictions: dict[int, list[str]] = {}
        for number, lines in (pair for part in gathered for pair in part.items()):
            predictions.setdefault(number, []).extend(lines)
        self._predictions, seen = predictions, VocMatches()
        spied = replaced(pascal_voc_evaluation, parse_rec=self._objects, np=seen)
        with tempfile.TemporaryDirectory() as folder, spied, absent:
            self._image_set_path = str(Path(folder) / "images.txt")
            Path(self._image_set_path).write_text("\n".join(self._found), encoding="utf-8")
            results: dict[str, dict[str, float]] | None = super().evaluate()
        if results is None:  # not rank 0
            return None
        rule = "voc07" if self._is_2007 else "voc12"
        matches = seen.arrays(predictions, self._found, self._classes.names, rule)
        keep(self.kept, "bbox", matches)
        present = {thing["name"] for things in self._found.values() for thing in things if not thing["difficult"]}
        fraction = len(present) / len(self._class_names)
        averaged = {name: value / fraction if fraction else math.nan for name, value in results["bbox"].items()}
        return {"bbox": {**averaged, "classes": len(present)}}

    def _read(self, path: Path) -> list[dict[str, Any]]:
        annotation = voc.read(path, Report())
        if annotation is None:
            raise UserError(f"{path} was changed since the data was checked; start again")
        return [
            {"name": str(self._classes.find(thing.name)), "difficult": thing.difficult, "bbox": list(thing.box)}
            for thing in annotation.things
        ]


def keep(kept: Kept, task: str, matches: dict[str, np.ndarray]) -> None:
    """Keep the matches of a ``task`` and the AP of each class."""
    per_class = by_class(matches)
    kept.add(f"detections_{task}", [f"{task}/{name}" for name in per_class], matches)
    kept.per_class |= {f"{task}/{name}": values for name, values in per_class.items()}


class CocoEvaluator(COCOEvaluator):
    """Detectron2's COCO evaluator, where a model without any detection has AP 0 and not NaN.

    It runs pycocotools, and not Detectron2's faster program, which does not say which detections it found right.
    """

    def __init__(self, dataset_name: str, tasks: tuple[str, ...], output_dir: str) -> None:
        super().__init__(dataset_name, tasks, output_dir=output_dir, use_fast_impl=False)
        self.kept = Kept()

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> Any:
        if coco_eval is None:
            nothing = COCO()
            nothing.dataset = {**self._coco_api.dataset, "annotations": []}
            with redirect_stdout(io.StringIO()):
                nothing.createIndex()
                coco_eval = COCOeval(self._coco_api, nothing, iou_type)
                coco_eval.evaluate()
                coco_eval.accumulate()
                coco_eval.summarize()
        names = class_names or [str(number) for number in coco_eval.params.catIds]
        keep(self.kept, iou_type, of_coco(coco_eval, names))
        return super()._derive_coco_results(coco_eval, iou_type, class_names)


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
    """Detectron2's LVIS evaluator, for current versions of numpy; a model without any detection has AP 0 and not NaN."""

    def evaluate(self) -> Any:
        """Return Detectron2's metrics."""
        with old_numpy():
            return super().evaluate()

    def _eval_predictions(self, predictions: Any) -> None:
        if not any(found["instances"] for found in predictions):  # an empty detection: it overlaps with nothing
            image = self._lvis_api.dataset["images"][0]
            mask = encode(np.zeros((image["height"], image["width"], 1), dtype=np.uint8, order="F"))[0]
            empty = {"image_id": image["id"], "category_id": 0, "score": 0.0, "bbox": [0.0, 0.0, 0.0, 0.0]}
            predictions = [{"instances": [{**empty, "segmentation": {**mask, "counts": mask["counts"].decode()}}]}]
        super()._eval_predictions(predictions)
