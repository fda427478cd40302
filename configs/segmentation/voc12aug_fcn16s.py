# VOC 2012 (with SBD) semantic segmentation with the FCN-16s of the MoCo paper, 30k iterations.
#
# Values: CVMI-Lab/SlotCon transfer/segmentation/configs/voc12aug/fcn_d6_r50-d16_513x513_30k_voc12aug_moco.py and its
# bases; docs/protocols/voc12aug_fcn16s.md lists the differences.
_base_ = ["_base_/runtime.py", "_base_/fcn16s.py", "_base_/voc12aug.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2049, 513), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(513, 513), cat_max_ratio=1.0),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
model = dict(
    data_preprocessor=dict(size=(513, 513)),  # smaller crops are padded to this size, after normalisation
    decode_head=dict(num_classes=21),
    test_cfg=dict(mode="whole"),
)
train_dataloader = dict(
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
            dict(type="Resize", scale=(2049, 513), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.003, weight_decay=0.0001))
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, milestones=[21000, 27000], gamma=0.1)]  # no warm-up
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=30000, val_interval=3000)
default_hooks = dict(checkpoint=dict(interval=3000))
