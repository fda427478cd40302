# K-Net: the kernels and maps of an FCN head, one kernel a class, updated three times; head, optimiser and schedule.
#
# Values: open-mmlab/mmsegmentation configs/knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py.
_base_ = ["runtime.py", "fcn_d8.py"]
model = dict(
    decode_head=dict(
        _delete_=True,
        type="IterativeDecodeHead",
        num_stages=3,
        kernel_update_head=[
            dict(
                type="KernelUpdateHead",
                num_classes=150,
                num_ffn_fcs=2,
                num_heads=8,
                num_mask_fcs=1,
                feedforward_channels=2048,
                in_channels=512,
                out_channels=512,
                dropout=0.0,
                conv_kernel_size=1,
                ffn_act_cfg=dict(type="ReLU", inplace=True),
                with_ffn=True,
                feat_transform_cfg=dict(conv_cfg=dict(type="Conv2d"), act_cfg=None),
                kernel_updator_cfg=dict(
                    type="KernelUpdator",
                    in_channels=256,
                    feat_channels=256,
                    out_channels=256,
                    act_cfg=dict(type="ReLU", inplace=True),
                    norm_cfg=dict(type="LN"),
                ),
            )
            for _ in range(3)
        ],
        kernel_generate_head=dict(_base_.model.decode_head, num_classes=150),
    ),
    auxiliary_head=dict(num_classes=150),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.0001, weight_decay=0.0005),
    clip_grad=dict(_delete_=True, max_norm=1, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", begin=1000, end=80000, milestones=[60000, 72000], by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
