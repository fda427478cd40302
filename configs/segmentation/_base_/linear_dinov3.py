# Head and schedule of DINOv3's linear segmentation.
#
# Values: facebookresearch/dinov3 dinov3/eval/segmentation/configs/config-ade20k-linear-training.yaml.
_base_ = ["runtime.py", "linear.py"]
model = dict(decode_head=dict(dropout_first=True, dropout_ratio=0.1))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.001, betas=(0.9, 0.999), weight_decay=0.001),
)
param_scheduler = [
    dict(type="WarmupOneCycleLR", warmup_iters=1500, warmup_ratio=1e-6, begin=0, end=40000, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=40000, val_interval=5000)
default_hooks = dict(checkpoint=dict(interval=5000))
