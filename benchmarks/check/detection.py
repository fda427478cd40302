"""Build the detector of a job on the CPU, load its backbone, and send one small picture through it."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage

from benchmarks.check.built import Built, Resolved, sizes
from transfer.batch_scaling import divided
from transfer.detection.config import backbone_spec, build_config, config_as_dict, fit_cpus, fitted
from transfer.detection.trainer import KEPT, Trainer, freeze
from transfer.job import TransferJob
from transfer.weights import Backbone, load_into
from transfer.weights.frameworks import FRAMEWORKS

SIDE = 128
"""Side of the picture in pixels."""
REGIONS = 8
"""Regions of the picture that the heads get: the real number takes long on a CPU, and tells nothing more."""
KEYPOINTS = 17


def resolve(job: TransferJob, backbone: Backbone | None, processes: int) -> Resolved:
    """Return the config of ``job``; UserError if it has a mistake, or does not fit ``backbone`` or so many processes."""
    cfg = build_config(job, backbone)
    batch = cfg.SOLVER.IMS_PER_BATCH
    divided(batch, job.accumulate, processes)
    return Resolved(
        cfg, config_as_dict(cfg), backbone_spec(cfg), batch, cfg.SOLVER.MAX_ITER, KEPT + 2
    )  # and the final one


def build(job: TransferJob, cfg: CfgNode, backbone: Backbone) -> Built:
    """Build the model and the optimiser that ``cfg`` describes, and compute the losses of one picture.

    Raises:
        UserError: the backbone does not fit the model.
    """
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    fit_cpus(cfg, 1)
    model: Any = build_model(cfg)
    load_into(model, fitted(cfg, backbone), job.protocol.weights_framework)
    if job.freeze == "backbone":
        freeze(model, FRAMEWORKS[job.protocol.weights_framework])
    optimizer = Trainer.build_optimizer(cfg, model)
    Trainer.build_lr_scheduler(cfg, optimizer)
    if (
        "VITDET" not in cfg or cfg.VITDET.MODEL.backbone.square_pad <= SIDE
    ):  # else it would pad the picture: half a minute
        if hasattr(model, "roi_heads"):
            model.roi_heads.batch_size_per_image = REGIONS
        with torch.no_grad(), EventStorage():
            model([_picture(cfg)])
    return sizes(model, optimizer)


def _picture(cfg: CfgNode) -> dict[str, Any]:
    """Return a picture with one object in the form that the model takes."""
    low, high = SIDE // 8, SIDE // 2
    outline = [float(x) for x in (low, low, high, low, high, high, low, high)]
    thing = Instances((SIDE, SIDE), gt_boxes=Boxes(torch.tensor([[low, low, high, high]]).float()))
    thing.gt_classes = torch.zeros(1, dtype=torch.int64)
    if cfg.INPUT.MASK_FORMAT == "bitmask":
        thing.gt_masks = BitMasks.from_polygon_masks([[outline]], SIDE, SIDE)
    else:
        thing.gt_masks = PolygonMasks([[outline]])
    if cfg.MODEL.KEYPOINT_ON:
        thing.gt_keypoints = Keypoints(torch.tensor([[[float(high // 2), float(high // 2), 2.0]] * KEYPOINTS]))
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"image": image, "instances": thing, "height": SIDE, "width": SIDE}
