# Head and schedule of DINOv2's linear segmentation; docs/protocols/ade20k_linear_dinov2.md says where they were read.
_base_ = ["runtime.py", "linear.py"]
model = dict(decode_head=dict(dropout_first=False, dropout_ratio=0))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.001, betas=(0.9, 0.999), weight_decay=0.0001),
)
param_scheduler = [  # the two are multiplied; mmengine ends one step early, so that 1501 and 40001 are mmcv's 1500 and 40000
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=1501, by_epoch=False),
    dict(type="PolyLR", eta_min=0.0, power=1.0, begin=0, end=40001, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=40000, val_interval=10000)
default_hooks = dict(checkpoint=dict(interval=10000))
