# Data and settings of U2PL on VOC 2012 with SBD. A protocol adds the fraction of labelled pictures and the iterations.
_base_ = ["u2pl.py", "data.py"]
__augmented = [
    dict(type="ResizeByFactor", ratio_range=(0.5, 2.0)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomCrop", crop_size=(513, 513), cat_max_ratio=1.0),
    dict(type="PackSegInputs"),
]
model = dict(
    data_preprocessor=dict(size=(513, 513)),
    decode_head=dict(num_classes=21),
    auxiliary_head=None,
    ohem=None,
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"decode_head": dict(lr_mult=10)}))
train_dataloader = dict(
    batch_size=8,  # per GPU; the runner sets base_batch_size / GPUs unless this is overridden
    num_workers=2,
    sampler=dict(_delete_=True, type="InTurns"),
    dataset=dict(
        type="PartlyLabelled",
        published="VOC2012aug",
        fraction=16,
        datasets=[
            dict(
                type="PascalVOCDataset",
                data_root="data/VOC2012",
                data_prefix=dict(img_path="JPEGImages", seg_map_path=masks),
                ann_file=f"ImageSets/Segmentation/{names}.txt",
                pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), *__augmented],
            )
            for masks, names in (("SegmentationClass", "train"), ("SegmentationClassAug", "aug"))
        ],
        unlabelled_pipeline=[dict(type="LoadImageFromFile"), *__augmented],
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="PascalVOCDataset",
        data_root="data/VOC2012",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/val.txt",
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    ),
)
