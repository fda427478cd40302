# Cityscapes semantic segmentation, linear decoder on a ViT-B/16, fine-tuned, 20k iterations.
#
# Values: tue-mps/benchmark-vfm-ss configs/cityscapes_linear_semantic.yaml, datasets/urban_scenes.py, datasets/transforms.py.
# See docs/protocols/cityscapes_linear_finetuned.md.
_base_ = ["_base_/linear_finetuned.py", "_base_/cityscapes.py"]

__pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(
        type="RandomResize", scale=(1024, 1024), ratio_range=(0.5, 2.0), keep_ratio=True, backend="pillow"
    ),  # of the longer side
    dict(type="RandomCrop", crop_size=(1024, 1024)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion", hue_delta=9),  # OpenCV's hues have 180 steps: 18 degrees
    dict(type="Pad", size=(1024, 1024)),
    dict(type="PackSegInputs"),
]
model = dict(
    data_preprocessor=dict(size=(1024, 1024)),
    decode_head=dict(num_classes=19),
    test_cfg=dict(mode="slide", crop_size=(1024, 1024), stride=(1024, 1024)),
)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=__pipeline))
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(2048, 1024), keep_ratio=True, backend="pillow"),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=20000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=20000, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
