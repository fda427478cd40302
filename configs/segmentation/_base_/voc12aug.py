# VOC 2012 train with VOC's own masks, and the additional images of SBD with SBD's masks.
_base_ = "data.py"
__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="Pad", size=(512, 512)),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=4,  # per GPU; the runner sets base_batch_size / GPUs unless this is overridden
    dataset=dict(
        type="ConcatDataset",
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
        type="PascalVOCDataset",
        data_root="data/VOC2012",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/val.txt",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(2048, 512), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
