# ADE20K semantic segmentation: DINOv2's linear head on a frozen backbone.
#
# Values: dinov2_vits14_ade20k_linear_config.py (dl.fbaipublicfiles.com/dinov2). See docs/protocols/ade20k_linear_dinov2.md.
_base_ = ["_base_/linear_dinov2.py", "_base_/ade20k.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),  # label 0 ("other") is ignored
    dict(
        type="RandomResize", scale=(99999999, 512), ratio_range=(0.5, 2.0), keep_ratio=True
    ),  # the shorter side is 512, however long the other is
    dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=2, num_workers=6, dataset=dict(pipeline=__pipeline))
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(99999999, 512), keep_ratio=True),
            dict(type="LoadAnnotations", reduce_zero_label=True),
            dict(type="PackSegInputs"),
        ],
    ),
)
