# VOC semantic segmentation: the protocol voc12aug_fcn_d8_20k with deformable 3x3 convolutions in C3 to C5.
#
# Nobody has published this protocol. The convolutions are those of open-mmlab/mmdetection
# configs/dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py. See docs/protocols/voc12aug_fcn_d8_20k_dcn.md.
_base_ = "voc12aug_fcn_d8_20k.py"

model = dict(
    backbone=dict(
        dcn=dict(type="DCN", deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
)
