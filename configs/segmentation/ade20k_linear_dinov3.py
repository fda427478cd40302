# ADE20K semantic segmentation: DINOv3's linear head on a frozen backbone.
#
# Values: facebookresearch/dinov3 eval/segmentation (configs/config-ade20k-linear-training.yaml, transforms.py, train.py).
# Images are resized by Pillow, as there. See docs/protocols/ade20k_linear_dinov3.md.
_base_ = ["_base_/linear_dinov3.py", "_base_/ade20k.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),  # label 0 ("other") is ignored
    dict(
        type="RandomResize", scale=(99999999, 512), ratio_range=(0.5, 2.0), keep_ratio=True, backend="pillow"
    ),  # the shorter side is 512, however long the other is
    dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="PhotoMetricDistortion",
        brightness_delta=32,
        contrast_range=(0.5, 1.5),
        saturation_range=(0.5, 1.5),
        hue_delta=90,  # OpenCV's hues have 180 steps: half a turn
    ),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=2, num_workers=6, dataset=dict(pipeline=__pipeline))
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(99999999, 512), keep_ratio=True, backend="pillow"),
            dict(type="LoadAnnotations", reduce_zero_label=True),
            dict(type="PackSegInputs"),
        ],
    ),
)
