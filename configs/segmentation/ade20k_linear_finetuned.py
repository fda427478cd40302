# ADE20K semantic segmentation, linear decoder on a ViT-B/16, fine-tuned, 40k iterations.
#
# Values: tue-mps/benchmark-vfm-ss configs/ade20k_linear_semantic.yaml, datasets/ade20k.py, datasets/transforms.py.
# See docs/protocols/ade20k_linear_finetuned.md.
_base_ = ["_base_/linear_finetuned.py", "_base_/ade20k.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
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
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(512, 512)),
)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=__pipeline))
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(99999999, 512), keep_ratio=True, backend="pillow"),  # the shorter side is 512
            dict(type="LoadAnnotations", reduce_zero_label=True),
            dict(type="PackSegInputs"),
        ],
    ),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=40000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=40000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
