# Cityscapes semantic segmentation with the FCN-16s of the MoCo paper (arXiv 1911.05722), 90k iterations.
#
# Values: CVMI-Lab/SlotCon transfer/segmentation/configs/cityscapes/fcn_d6_r50-d16_769x769_90k_cityscapes_moco.py and
# its bases, the nearest public definition (the PixPro authors published none); docs/protocols/cityscapes_fcn16s.md
# lists the differences. Nothing is inherited and no helper name is left over: every key can be overridden and counts.
default_scope = "mmseg"

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],  # RGB, for pixels of 0..255
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(769, 769),  # crops at an image's border are filled up to this, after normalisation
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="ResNet",  # the plain 7x7 stem, as pre-trained; V1c would leave the stem at random
        depth=50,
        stem_channels=64,
        base_channels=64,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        strides=(1, 2, 2, 1),  # output stride 16
        dilations=(1, 1, 1, 2),
        contract_dilation=True,
        style="pytorch",  # the stride sits in the 3x3 convolution
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
    ),
    decode_head=dict(
        type="FCNHead",
        in_channels=2048,
        in_index=3,
        channels=256,
        num_convs=2,
        kernel_size=3,
        dilation=6,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=19,
        align_corners=True,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
    train_cfg=dict(),
    test_cfg=dict(mode="slide", crop_size=(769, 769), stride=(513, 513)),
)

train_dataloader = dict(
    batch_size=2,  # per GPU, on 8; unless overridden, the runner makes it base_batch_size / GPUs
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="CityscapesDataset",
        data_root="data/cityscapes",
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
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
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CityscapesDataset",
        data_root="data/cityscapes",
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(2049, 1025), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0001),
    clip_grad=None,
)
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, milestones=[63000, 81000], gamma=0.1)]  # no warm-up
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images a batch, all GPUs together

train_cfg = dict(type="IterBasedTrainLoop", max_iters=90000, val_interval=9000)
val_cfg = dict(type="ValLoop")

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=9000, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
log_processor = dict(by_epoch=False)
visualizer = dict(type="Visualizer", vis_backends=[])
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0, deterministic=False)
