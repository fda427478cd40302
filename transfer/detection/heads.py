"""The one model part that Detectron2 lacks: a norm behind res5 where res5 is the box head."""

from __future__ import annotations

from detectron2.layers import get_norm
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from torch import nn


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """res5 followed by one more norm (``roi_heads.res5.norm``), of the kind of ``MODEL.RESNETS.NORM``.

    What a self-supervised trunk puts out has no calibrated scale, hence the norm (MoCo paper, appendix on detection;
    facebookresearch/moco detection/train_net.py has the class of this name).
    """

    @classmethod
    def _build_res5_block(cls, cfg) -> tuple[nn.Sequential, int]:  # type: ignore[no-untyped-def]
        res5, channels = super()._build_res5_block(cfg)
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels
