# VOC 2012 (with SBD) semantic segmentation: DINOv3's linear head on a frozen backbone.
#
# DINOv3's config is for ADE20K; this is the same with the images of VOC. See docs/protocols/voc12aug_linear_dinov3.md.
_base_ = ["_base_/linear_dinov3.py", "_base_/voc12aug.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
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
model = dict(decode_head=dict(num_classes=21))
train_dataloader = dict(
    batch_size=2,
    num_workers=6,
    dataset=dict(
        datasets=[
            dict(
                type="PascalVOCDataset",
                data_root="data/VOC2012",
                data_prefix=dict(img_path="JPEGImages", seg_map_path=masks),
                ann_file=f"ImageSets/Segmentation/{names}.txt",
                pipeline=__pipeline,
            )
            for masks, names in (("SegmentationClass", "train"), ("SegmentationClassAug", "aug"))
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(99999999, 512), keep_ratio=True, backend="pillow"),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
