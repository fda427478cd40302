"""Keep the objects that a detector finds in a few test pictures, beside the true ones. Importing this file imports Detectron2.

Shapes: n objects; H × W pixels; J keypoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import annotations_to_instances, read_image
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BitMasks, Instances
from detectron2.utils import comm
from PIL import Image

from transfer.samples import OBJECTS, Choice, Sample, together, with_objects

TRUTH = "truth"
"""Key of an input of evaluation with the annotations of its picture."""


class SampleKeeper(DatasetEvaluator):
    """Measures nothing; ``arrays`` holds on rank 0, after the evaluation, what `transfer.samples.together` returns.

    Inputs must have the annotations of their pictures as `TRUTH`.
    """

    def __init__(self, dataset_name: str) -> None:
        self._about = MetadataCatalog.get(dataset_name)
        self._choice = Choice()
        self._samples: dict[str, Sample] = {}
        self.arrays: dict[str, np.ndarray] = {}

    def reset(self) -> None:
        """Forget the pictures of an earlier evaluation."""
        self._samples = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Keep the pictures among ``inputs`` that may be among the chosen ones."""
        for given, output in zip(inputs, outputs, strict=True):
            name = Path(given["file_name"]).stem
            if self._choice.wants(name):
                picture = Image.fromarray(read_image(given["file_name"], "RGB"))
                found = of_prediction(output["instances"])
                self._samples[name] = with_objects(picture, of_annotations(given, found), found)

    def evaluate(self) -> None:
        """Gather the samples of all processes."""
        parts = comm.gather(self._samples, dst=0)
        if comm.is_main_process():
            samples = {name: sample for part in parts for name, sample in part.items()}
            self.arrays = together(samples, classes=np.array(self._about.thing_classes, str))


def of_annotations(given: dict[str, Any], found: Sample) -> Sample:
    """Return the true objects of a picture in its own pixels, crowds left out, with masks or keypoints if ``found`` has them."""
    things = [dict(thing) for thing in given[TRUTH] if not thing.get("iscrowd")]
    for key, ours in (("segmentation", "masks"), ("keypoints", "keypoints")):
        if ours not in found or not all(key in thing for thing in things):
            for thing in things:
                thing.pop(key, None)
    for thing in things:
        if "keypoints" in thing:
            thing["keypoints"] = np.reshape(thing["keypoints"], (-1, 3)).tolist()
    truth = annotations_to_instances(things, (given["height"], given["width"]), mask_format="bitmask")
    true = {"boxes": truth.gt_boxes.tensor.numpy(), "classes": truth.gt_classes.numpy()}
    if truth.has("gt_masks"):
        true["masks"] = truth.gt_masks.tensor.numpy()
    if truth.has("gt_keypoints"):
        true["keypoints"] = truth.gt_keypoints.tensor.numpy()
    return true


def of_prediction(instances: Instances) -> Sample:
    """Return the found objects of a picture in its own pixels, those with the highest scores."""
    best = instances[instances.scores.argsort(descending=True)[:OBJECTS]].to("cpu")
    found = {"boxes": best.pred_boxes.tensor, "scores": best.scores, "classes": best.pred_classes}
    if best.has("pred_masks"):
        masks = best.pred_masks
        found["masks"] = masks.tensor if isinstance(masks, BitMasks) else masks
    if best.has("pred_keypoints"):
        found["keypoints"] = best.pred_keypoints
    return {name: values.numpy() for name, values in found.items()}
