# Cityscapes semantic segmentation with MaskFormer-R50, 90k iterations.
#
# Nobody has published this protocol for ResNet-50: it is ade20k_maskformer with the images of open-mmlab/mmsegmentation
# configs/_base_/datasets/cityscapes.py and the iterations of facebookresearch/MaskFormer configs/cityscapes-19 (ResNet-101).
# See docs/protocols/cityscapes_maskformer.md.
_base_ = ["_base_/maskformer.py", "_base_/cityscapes.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(num_classes=19, loss_cls=dict(class_weight=[1.0] * 19 + [0.1])),
)
train_dataloader = dict(num_workers=2, dataset=dict(pipeline=__pipeline))
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
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=90000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=90000, val_interval=9000)
default_hooks = dict(checkpoint=dict(interval=9000))
