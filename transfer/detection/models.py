"""Models that Detectron2 lacks or cannot build from a YAML config: a C4 box head with an extra norm, and FCOS."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelP6P7
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, Res5ROIHeads
from torch import nn


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """C4 box head: res5 followed by one more norm (``roi_heads.res5.norm``) of the type ``MODEL.RESNETS.NORM``.

    The norm is needed because the output of a self-supervised backbone has no calibrated scale (MoCo paper, appendix on
    detection; facebookresearch/moco detection/train_net.py has the class of this name).
    """

    @classmethod
    def _build_res5_block(cls, cfg) -> tuple[nn.Sequential, int]:  # type: ignore[no-untyped-def]
        res5, channels = super()._build_res5_block(cfg)
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels


@BACKBONE_REGISTRY.register()
def build_fcos_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the FPN of Detectron2's RetinaNet, but with P6 and P7 made from P5 (``configs/common/models/fcos.py``)."""
    bottom_up, fpn = build_resnet_backbone(cfg, input_shape), cfg.MODEL.FPN
    top = LastLevelP6P7(fpn.OUT_CHANNELS, fpn.OUT_CHANNELS, "p5")
    return FPN(bottom_up, fpn.IN_FEATURES, fpn.OUT_CHANNELS, fpn.NORM, top, fpn.FUSE_TYPE)


@META_ARCH_REGISTRY.register()
def build_fcos(cfg: CfgNode) -> FCOS:
    """Build Detectron2's FCOS, for which Detectron2 has only a LazyConfig.

    MODEL.RETINANET holds the settings that FCOS shares with RetinaNet.
    """
    backbone, common = build_backbone(cfg), cfg.MODEL.RETINANET
    shapes = [backbone.output_shape()[level] for level in common.IN_FEATURES]
    head = FCOSHead(
        input_shape=shapes,
        num_classes=common.NUM_CLASSES,
        conv_dims=[shapes[0].channels] * common.NUM_CONVS,
        prior_prob=common.PRIOR_PROB,
        norm=common.NORM,
    )
    return FCOS(
        backbone=backbone,
        head=head,
        head_in_features=common.IN_FEATURES,
        num_classes=common.NUM_CLASSES,
        focal_loss_alpha=common.FOCAL_LOSS_ALPHA,
        focal_loss_gamma=common.FOCAL_LOSS_GAMMA,
        test_score_thresh=common.SCORE_THRESH_TEST,
        test_topk_candidates=common.TOPK_CANDIDATES_TEST,
        test_nms_thresh=common.NMS_THRESH_TEST,
        max_detections_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )
