"""Fixed subsets of COCO's training images for the semi-supervised protocols, the same on every machine.

All ids are sorted by the SHA-256 of "k:id" (in UTF-8; an id is a decimal number, or text in files of other tools); the subset of
``percent`` % in fold k is the first part of this list. It depends on the ids only, not on a random generator that might change.
Within a fold, the 1 % subset is part of the 10 % subset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pixbench.errors import UserError

FOLDS = 5
PERCENTS = (1, 10)
TRAIN = "coco_2017_train"


def subset(ids: Iterable[Any], percent: float, fold: int) -> list[Any]:
    """Return the ids of the subset in ascending order; at least one."""
    drawn = sorted(set(ids), key=lambda number: hashlib.sha256(f"{fold}:{number}".encode()).digest())
    return sorted(drawn[: max(1, round(len(drawn) * percent / 100))])


def register(seed: int, out: Path) -> None:
    """Register ``coco_2017_train_{1,10}pct`` in Detectron2, with fold ``seed`` modulo `FOLDS`.

    A run that trains on one of them writes its image ids to ``out / "images.txt"``.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for percent in PERCENTS:
        name = f"{TRAIN}_{percent}pct"
        for catalog in (DatasetCatalog, MetadataCatalog):
            catalog.pop(name, None)

        def load(percent: int = percent) -> list[dict[str, Any]]:
            from detectron2.utils import comm

            from pixbench.files import write_text

            records = DatasetCatalog.get(TRAIN)
            chosen = subset((record["image_id"] for record in records), percent, seed % FOLDS)
            wanted = set(chosen)
            found = [record for record in records if record["image_id"] in wanted]
            if not any(not thing["iscrowd"] for record in found for thing in record["annotations"]):
                raise UserError(
                    f"the {percent} % of the training images that fold {seed % FOLDS} draws ({len(found)} of {len(records)}) has "
                    "no object; choose another --seed, or a protocol that trains on all images"
                )
            if comm.is_main_process():
                write_text(out / "images.txt", "".join(f"{number}\n" for number in chosen))
            return found

        DatasetCatalog.register(name, load)
        about = MetadataCatalog.get(TRAIN).as_dict()
        MetadataCatalog.get(name).set(**{key: value for key, value in about.items() if key != "name"})
