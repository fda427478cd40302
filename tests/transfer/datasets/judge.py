"""Judge what becomes of a damaged world: refused in time, or read the same by training and by evaluation."""

from __future__ import annotations

import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutations import KINDS, Kind, Mutation

from transfer.datasets.check import READERS, SETS, Outcome, check_dataset, needs_of
from transfer.datasets.classes import Classes
from transfer.datasets.prepared import prepare, prepared
from transfer.job import TransferJob
from transfer.protocols import find_protocol

PROGRAMMERS = re.compile(r"Traceback|\b[A-Z]\w*(Error|Exception)\b|NoneType|<class|object at 0x|_io\.|dict_|msgspec")
"""What a sentence for people does not have."""
Predictions = dict[str, Any]


def copy_world(world: Path, kind: Kind, root: Path) -> Path:
    """Copy the parts of ``world`` that ``kind`` needs."""
    for part in kind.parts:
        shutil.copytree(world / part, root / part)
    shutil.copy(world / "miniworld.json", root)
    return root


def judge(mutation: Mutation, world: Path, tmp: Path) -> str:
    """Apply ``mutation`` to a copy of ``world`` and check what comes of it; return "refused" or "read"."""
    kind = KINDS[mutation.kind]
    root = copy_world(world, kind, tmp / "data")
    mutation.apply(root)
    outcome = check_dataset(root, kind.data_set, needs_of(find_protocol(kind.protocol), None))
    for line in (*outcome.problems, *outcome.notes):
        assert line.isprintable(), line
        assert not PROGRAMMERS.search(line), line
    for line in outcome.problems:
        assert str(root) in line, line
    if outcome.problems:
        assert mutation.expect != "same", outcome.problems
        return "refused"
    assert mutation.expect != "refused", outcome.notes
    if find_protocol(kind.protocol).framework == "detectron2":
        found = Reading(mutation.kind, root, tmp / "run", outcome)
        found.load()
        if mutation.kind == "instances":  # cityscapesscripts measures with files that no other kind has
            return "read"
        found.check()
        if mutation.expect.startswith("same"):
            sound = reference(mutation.kind, world, tmp.parent / f"reference-{mutation.kind}")
            assert found.training == sound.training
            assert found.scores(sound.objects) == pytest.approx(sound.scores, abs=1e-6, nan_ok=True)
    return "read"


def skipped(mutation: Mutation) -> bool:
    """Whether no reader checks data of this kind yet."""
    return any(part.get("check", "voc") not in READERS for part in SETS[KINDS[mutation.kind].data_set]["parts"])


class Reference:
    """What the unchanged world gives."""

    def __init__(self, kind: str, world: Path, out: Path) -> None:
        outcome = check_dataset(world, KINDS[kind].data_set, needs_of(find_protocol(KINDS[kind].protocol), None))
        assert (outcome.problems, outcome.run_lengths, outcome.incomplete) == ([], False, [])
        reading = Reading(kind, world, out, outcome)
        reading.load()
        reading.check()
        self.training, self.objects = reading.training, jittered(reading.truth())
        self.scores = reading.scores(self.objects)


@cache
def reference(kind: str, world: Path, out: Path) -> Reference:
    """Return the reference of ``kind``; it is computed once."""
    return Reference(kind, world, out)


def key_of(path: str) -> str:
    """Return the number in a picture's name, which no mutation changes."""
    return re.findall(r"\d{6,}", os.path.basename(path))[-1]


class Reading:
    """A world as Detectron2 gets it."""

    def __init__(self, kind: str, root: Path, out: Path, outcome: Outcome, classes: Classes | None = None) -> None:
        from transfer.detection import datasets

        job = TransferJob(find_protocol(KINDS[kind].protocol), root, out, scale="mini", classes=classes)
        datasets.point_at(root)
        from detectron2.data import get_detection_dataset_dicts

        from transfer.detection.config import build_config
        from transfer.detection.data_settings import read_masks
        from transfer.detection.evaluators import evaluator

        prepare(out, outcome)
        datasets.register(job, prepared(out))
        self.cfg = build_config(job, None)
        read_masks(self.cfg, job, prepared(out))
        train = self.cfg.DATASETS.TRAIN[:1]
        least = self.cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if self.cfg.MODEL.KEYPOINT_ON else 0
        self.train = get_detection_dataset_dicts(
            train, filter_empty=self.cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, min_keypoints=least
        )
        self.test = get_detection_dataset_dicts(self.cfg.DATASETS.TEST, filter_empty=False)
        self.evaluator = evaluator(self.cfg, self.cfg.DATASETS.TEST[0], str(out / "inference"))
        masks = self.cfg.MODEL.MASK_ON
        self.training = {key_of(record["file_name"]): content(record, masks) for record in self.train}

    def load(self) -> None:
        """Load every picture as training and evaluation do."""
        from transfer.detection.trainer import Mapper

        mappers = Mapper(self.cfg, True), Mapper(self.cfg, False)
        torch.manual_seed(0)
        np.random.seed(0)
        boxes = [mappers[0](record)["instances"].gt_boxes.tensor for record in self.train]
        assert all(bool(torch.isfinite(found).all()) for found in boxes)
        assert sum(map(len, boxes))
        for record in self.test:
            mappers[1](record)

    def check(self) -> None:
        """Perfect predictions have AP 100, and none at all have AP 0."""
        truth = self.truth()
        for objects, wanted in ((truth, 100), ({key: [] for key in truth}, 0)):
            scores = self.scores(objects)
            assert {task: scores[f"{task}/ap"] for task in self.tasks} == pytest.approx(
                dict.fromkeys(self.tasks, wanted), abs=0.01
            )

    @property
    def tasks(self) -> list[str]:
        """The results that a perfect model has 100 in."""
        on = {"bbox": True, "segm": self.cfg.MODEL.MASK_ON, "keypoints": self.cfg.MODEL.KEYPOINT_ON}
        return [task for task, wanted in on.items() if wanted]

    def scores(self, objects: dict[str, list[Predictions]]) -> dict[str, float]:
        """Return the scores of these predictions."""
        self.evaluator.reset()
        for record in self.test:
            self.evaluator.process([record], [{"instances": instances(record, objects[key_of(record["file_name"])])}])
        found = self.evaluator.evaluate()
        return {f"{task}/{name.casefold()}": float(value) for task in self.tasks for name, value in found[task].items()}

    def truth(self) -> dict[str, list[Predictions]]:
        """Return the objects of each test picture in the reading of the evaluator."""
        return {key_of(record["file_name"]): self.objects(record) for record in self.test}

    def objects(self, record: dict[str, Any]) -> list[Predictions]:
        """Return the objects of a picture that count."""
        from transfer.detection.evaluators import VocEvaluator

        if isinstance(self.evaluator, VocEvaluator):
            path = Path(record["file_name"].replace("JPEGImages", "Annotations")).with_suffix(".xml")
            return [
                {"class": int(thing["name"]), "box": [thing["bbox"][0] - 1, thing["bbox"][1] - 1, *thing["bbox"][2:]]}
                for thing in self.evaluator._read(path)
                if not thing["difficult"]
            ]
        return [self.object(entry) for entry in self.entries(record["image_id"]) if not entry.get("iscrowd")]

    def entries(self, image_id: Any) -> list[dict[str, Any]]:
        api = getattr(self.evaluator, "_lvis_api", None) or self.evaluator._coco_api
        found = api.img_ann_map if hasattr(api, "img_ann_map") else api.imgToAnns
        return list(found[image_id])

    def object(self, entry: dict[str, Any]) -> Predictions:
        from detectron2.data import MetadataCatalog

        about = MetadataCatalog.get(self.cfg.DATASETS.TEST[0])
        numbers = getattr(about, "thing_dataset_id_to_contiguous_id", None)
        x, y, width, height = entry["bbox"]
        found = {
            "class": numbers[entry["category_id"]] if numbers else entry["category_id"] - 1,
            "box": [x, y, x + width, y + height],
        }
        if self.cfg.MODEL.MASK_ON:
            api = getattr(self.evaluator, "_lvis_api", None) or self.evaluator._coco_api
            found["mask"] = (api.ann_to_mask if hasattr(api, "ann_to_mask") else api.annToMask)(entry)
        if self.cfg.MODEL.KEYPOINT_ON:
            points = np.array(entry["keypoints"], float).reshape(-1, 3)
            found["keypoints"] = points + np.array([0.5, 0.5, 0])
        return found


def instances(record: dict[str, Any], objects: list[Predictions]) -> Any:
    """Return objects as the predictions of a model."""
    from detectron2.structures import Boxes, Instances

    found = Instances((record["height"], record["width"]))
    found.pred_boxes = Boxes(torch.tensor([thing["box"] for thing in objects]).reshape(-1, 4))
    found.pred_classes = torch.tensor([thing["class"] for thing in objects], dtype=torch.int64)
    found.scores = torch.tensor([thing.get("score", 1.0) for thing in objects])
    size = record["height"], record["width"]
    if any("mask" in thing for thing in objects) or not objects:
        found.pred_masks = torch.tensor(np.array([thing["mask"] for thing in objects]).reshape(-1, *size)).bool()
    if any("keypoints" in thing for thing in objects) or not objects:
        found.pred_keypoints = torch.tensor(np.array([thing["keypoints"] for thing in objects]).reshape(-1, 17, 3))
    return found


def jittered(truth: dict[str, list[Predictions]]) -> dict[str, list[Predictions]]:
    """Return predictions of a middling model: some lack, some have another class, all boxes are a little off."""
    rng = np.random.default_rng(0)
    found = {}
    for key, objects in sorted(truth.items()):
        kept = [thing for thing in objects if rng.random() > 0.15]
        found[key] = [
            {
                **thing,
                "box": (np.array(thing["box"]) + rng.uniform(-4, 4, 4)).tolist(),
                "class": thing["class"] if "keypoints" in thing or rng.random() > 0.1 else 3,
                "score": round(float(rng.uniform(0.1, 1)), 3),
            }
            for thing in kept
        ]
    return found


def content(record: dict[str, Any], masks: bool) -> list[tuple]:
    """Return the objects of a training record in an order that does not depend on the file's."""
    from detectron2.structures import BoxMode

    def area(thing: dict[str, Any]) -> int:
        from pycocotools import mask

        found = thing.get("segmentation")
        if not found:
            return -1
        runs = (
            mask.merge(mask.frPyObjects(found, record["height"], record["width"])) if isinstance(found, list) else found
        )
        return int(mask.area(runs))

    things = [
        (
            thing["category_id"],
            *np.round(BoxMode.convert(thing["bbox"], thing["bbox_mode"], BoxMode.XYXY_ABS), 4),
            thing.get("iscrowd", 0),
            area(thing) if masks else 0,
            *thing.get("keypoints", ()),
        )
        for thing in record["annotations"]
    ]
    return [(record["width"], record["height"]), *sorted(things)]
