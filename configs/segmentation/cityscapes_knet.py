# Cityscapes semantic segmentation with K-Net (FCN-R50-D8, three updates), 80k iterations.
#
# Nobody has published this protocol: it is ade20k_knet with the images of open-mmlab/mmsegmentation
# configs/_base_/datasets/cityscapes.py. See docs/protocols/cityscapes_knet.md.
_base_ = ["_base_/knet.py", "_base_/cityscapes.py"]

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
    decode_head=dict(
        kernel_update_head=[dict(head, num_classes=19) for head in _base_.model.decode_head.kernel_update_head],
        kernel_generate_head=dict(num_classes=19),
    ),
    auxiliary_head=dict(num_classes=19),
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
