# Cityscapes semantic segmentation: DINOv2's linear head on a frozen backbone.
#
# No config of DINOv2 for Cityscapes is public: this is the one for VOC2012 with the images of Cityscapes at their own size.
# See docs/protocols/cityscapes_linear_dinov2.md.
_base_ = ["_base_/linear_dinov2.py", "_base_/cityscapes.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
model = dict(decode_head=dict(num_classes=19))
train_dataloader = dict(batch_size=2, num_workers=6, dataset=dict(pipeline=__pipeline))
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(2048, 1024), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
