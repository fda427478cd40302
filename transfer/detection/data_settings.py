"""Settings of Detectron2's config that follow from the data: number of classes, format of the masks."""

from __future__ import annotations

from detectron2.config import CfgNode

from pixbench.errors import UserError
from transfer.datasets.prepared import Prepared
from transfer.detection.datasets import VOC, voc_list
from transfer.job import TransferJob
from transfer.protocols import leaves

CLASSES = {
    "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
    "build_fcos": "MODEL.RETINANET.NUM_CLASSES",
    "build_vitdet": "VITDET.MODEL.roi_heads.num_classes",
}
"""Meta-architecture -> the setting that the model takes its number of classes from."""
MASKS = "INPUT.MASK_FORMAT"


def fit_classes(cfg: CfgNode, job: TransferJob, published: int) -> None:
    """Set the number of classes to that of the data: ``published``, or that of the job's own classes.

    Raises:
        UserError: an override says another number.
    """
    key = CLASSES[cfg.MODEL.META_ARCHITECTURE]
    number = len(job.classes) if job.classes else published
    given = job.overrides.get(key, number)
    if given != number:
        raise UserError(
            f"{key} is {given}, but the data has {number} classes{f' ({job.classes.source})' if job.classes else ''}; leave it "
            "out, or run on classes of your own with --classes FILE"
        )
    cfg.merge_from_list([key, number])
    if job.classes:  # a user's own data may be in VOC2007 alone
        cfg.DATASETS.TRAIN = tuple(
            name for name in cfg.DATASETS.TRAIN if name not in VOC or voc_list(job.data_root, name).exists()
        )


def number_of_classes(cfg: CfgNode) -> int:
    """Return the number of classes of the model that ``cfg`` builds."""
    return int(dict(leaves(cfg))[CLASSES[cfg.MODEL.META_ARCHITECTURE]])


def read_masks(cfg: CfgNode, job: TransferJob, data: Prepared) -> tuple[str, ...]:
    """Let Detectron2 read run lengths if the data has them; return a sentence that says so.

    Raises:
        UserError: an override asks for polygons.
    """
    wanted = "VITDET" in cfg or cfg.MODEL.MASK_ON
    if not (data.run_lengths and wanted) or cfg.INPUT.MASK_FORMAT == "bitmask":
        return ()
    if MASKS in job.overrides:
        raise UserError(f"{MASKS} is {cfg.INPUT.MASK_FORMAT}, but masks of the data are run lengths; leave it out")
    cfg.INPUT.MASK_FORMAT = "bitmask"
    return (f"{MASKS} bitmask instead of polygon, because masks of the data are run lengths",)
