# Pascal VOC 2012 semantic segmentation (without SBD), linear decoder on a ViT-B/16, fine-tuned, 20k iterations.
#
# Values: tue-mps/benchmark-vfm-ss configs/pascal_voc_linear_semantic.yaml, datasets/pascal_voc.py, datasets/transforms.py.
# See docs/protocols/voc12_linear_finetuned.md.
_base_ = ["_base_/linear_finetuned.py", "_base_/voc12aug.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(
        type="RandomResize", scale=(512, 512), ratio_range=(0.5, 2.0), keep_ratio=True, backend="pillow"
    ),  # of the longer side
    dict(type="RandomCrop", crop_size=(512, 512)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion", hue_delta=9),  # OpenCV's hues have 180 steps: 18 degrees
    dict(type="Pad", size=(512, 512)),
    dict(type="PackSegInputs"),
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=21),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(512, 512)),
)
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        _delete_=True,
        type="PascalVOCDataset",
        data_root="data/VOC2012",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/train.txt",
        pipeline=__pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(99999999, 512), keep_ratio=True, backend="pillow"),  # the shorter side is 512
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=20000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=20000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
