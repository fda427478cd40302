# VOC 2012 (with SBD) semantic segmentation: DINOv2's linear head on a frozen backbone.
#
# Values: dinov2_vitl14_voc2012_linear_config.py (dl.fbaipublicfiles.com/dinov2). See docs/protocols/voc12aug_linear_dinov2.md.
_base_ = ["_base_/linear_dinov2.py", "_base_/voc12aug.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
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
            dict(type="Resize", scale=(2048, 512), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
