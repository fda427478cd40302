# Cityscapes semantic segmentation: DINOv3's linear head on a frozen backbone.
#
# DINOv3's config is for ADE20K; this is the same with the images of Cityscapes at their own size.
# See docs/protocols/cityscapes_linear_dinov3.md.
_base_ = ["_base_/linear_dinov3.py", "_base_/cityscapes.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True, backend="pillow"),
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
model = dict(decode_head=dict(num_classes=19))
train_dataloader = dict(batch_size=2, num_workers=6, dataset=dict(pipeline=__pipeline))
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(2048, 1024), keep_ratio=True, backend="pillow"),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
