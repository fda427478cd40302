"""Register the data sets of a job in Detectron2, in the reading that the check of the data used.

VOC is read by `transfer.datasets.voc`. COCO and LVIS are read by Detectron2, from copies where fields had to be filled in.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pixbench.errors import UserError
from transfer.datasets import voc
from transfer.datasets.classes import Classes, published_classes
from transfer.datasets.layout import read_list
from transfer.datasets.prepared import Prepared
from transfer.datasets.report import Report
from transfer.job import TransferJob

VOC = {
    "voc_2007_trainval": ("VOC2007", "trainval", 2007),
    "voc_2007_test": ("VOC2007", "test", 2007),
    "voc_2012_trainval": ("VOC2012", "trainval", 2012),
}
"""Detectron2's name -> folder, list and year."""


def point_at(data_root: Path) -> None:
    """Tell Detectron2 where the data sets are, in the variable that it reads when ``detectron2.data`` is imported."""
    os.environ["DETECTRON2_DATASETS"] = str(data_root)


def register(job: TransferJob, prepared: Prepared) -> None:
    """Register Detectron2's built-in data sets below the data root of ``job``, and replace those that we read differently."""
    point_at(job.data_root)
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets import builtin, cityscapes

    from transfer.detection import subsets

    cityscapes.mp = Processes
    DatasetCatalog.clear()
    MetadataCatalog.clear()
    importlib.reload(builtin)
    for name, (folder, split, year) in VOC.items():
        _register_voc(name, job.data_root / folder, split, year, job.classes or published_classes("voc.txt"))
    for name in DatasetCatalog.list():
        original = MetadataCatalog.get(name).as_dict().get("json_file")
        if original and MetadataCatalog.get(name).evaluator_type in ("coco", "lvis"):
            _register_coco(name, prepared.copies.get(original, original))
    subsets.register(job.seed, job.out)


def size(names: Iterable[str]) -> int:
    """Return the number of images of the registered data sets ``names`` together."""
    from detectron2.data import DatasetCatalog

    return sum(len(DatasetCatalog.get(name)) for name in names)


class Processes:
    """What Detectron2 takes from `multiprocessing` to read Cityscapes, with workers that SIGTERM ends at any time.

    A pool ends its workers by SIGTERM and waits for them. With the handler of a command, which raises KeyboardInterrupt, a
    worker may miss it at the wrong moment, and the run would wait for ever.
    """

    cpu_count = staticmethod(multiprocessing.cpu_count)

    @staticmethod
    def Pool(processes: int) -> Any:
        """Return a pool whose workers have the system's handler."""
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            return multiprocessing.Pool(processes)
        finally:
            signal.signal(signal.SIGTERM, before)


def _register_voc(name: str, home: Path, split: str, year: int, classes: Classes) -> None:
    from detectron2.data import MetadataCatalog

    about = {"dirname": str(home), "split": split, "year": year, "thing_classes": list(classes.names)}
    _replace(name, partial(voc_records, home, split, classes))
    MetadataCatalog.get(name).set(evaluator_type="pascal_voc", **about)


def _register_coco(name: str, path: str) -> None:
    """Let Detectron2 read ``path``. The names of the classes come from there: the check has compared them."""
    from detectron2.data import MetadataCatalog
    from detectron2.data.datasets import load_coco_json
    from detectron2.data.datasets.lvis import load_lvis_json

    about = MetadataCatalog.get(name).as_dict()
    if about["evaluator_type"] == "coco":
        about = {key: value for key, value in about.items() if not key.startswith("thing_")}
    load = load_lvis_json if about["evaluator_type"] == "lvis" else load_coco_json
    _replace(name, partial(load, path, about["image_root"], name))
    MetadataCatalog.get(name).set(**{key: value for key, value in about.items() if key != "name"} | {"json_file": path})


def _replace(name: str, load: Callable[[], list[dict[str, Any]]]) -> None:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop(name, None)
    DatasetCatalog.register(name, load)


def voc_list(data_root: Path, name: str) -> Path:
    """Return the list of images of Detectron2's data set ``name`` (a key of `VOC`)."""
    folder, split, _ = VOC[name]
    return data_root / folder / "ImageSets" / "Main" / f"{split}.txt"


def voc_records(home: Path, split: str, classes: Classes) -> list[dict[str, Any]]:
    """Return the images and objects of a list of VOC in Detectron2's form; the same as its `load_voc_instances` gives.

    Difficult objects are trained on, as in Detectron2. Boxes become (x1, y1, x2, y2) from 0.
    """
    from detectron2.structures import BoxMode

    records = []
    for name in read_list(home / "ImageSets" / "Main" / f"{split}.txt"):
        image, annotation = (
            home / "JPEGImages" / f"{name}.jpg",
            voc.read(home / "Annotations" / f"{name}.xml", Report()),
        )
        if annotation is None:
            raise UserError(f"{home}/Annotations/{name}.xml was changed since the data was checked; start again")
        width, height = voc.size_of(annotation, image)
        objects = [
            {
                "category_id": classes.find(thing.name),
                "bbox": [thing.box[0] - 1, thing.box[1] - 1, *thing.box[2:]],
                "bbox_mode": BoxMode.XYXY_ABS,
            }
            for thing in annotation.things
        ]
        records.append(
            {
                "file_name": str(image),
                "image_id": voc_id(name),
                "height": height,
                "width": width,
                "annotations": objects,
            }
        )
    return records


def voc_id(name: str) -> str:
    """Return the image id of a name in a list. Detectron2 writes it to files with blanks, in any encoding."""
    return quote(name, safe="")
