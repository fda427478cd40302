# Cityscapes semantic segmentation with the FCN-16s of the MoCo paper (arXiv 1911.05722), 90k iterations.
#
# Values: CVMI-Lab/SlotCon transfer/segmentation/configs/cityscapes/fcn_d6_r50-d16_769x769_90k_cityscapes_moco.py and
# its bases, the nearest public definition (the PixPro authors published none); docs/protocols/cityscapes_fcn16s.md
# lists the differences.
_base_ = ["_base_/runtime.py", "_base_/fcn16s.py", "_base_/cityscapes.py"]

model = dict(
    data_preprocessor=dict(size=(769, 769)),  # smaller crops are padded to this size, after normalisation
    test_cfg=dict(mode="slide", crop_size=(769, 769), stride=(513, 513)),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(2049, 1025), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(769, 769), cat_max_ratio=1.0),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackSegInputs"),
        ],
    ),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.0001))
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, milestones=[63000, 81000], gamma=0.1)]  # no warm-up
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=90000, val_interval=9000)
default_hooks = dict(checkpoint=dict(interval=9000))
