# ADE20K semantic segmentation with UPerNet-R50, 160k iterations.
#
# Values: open-mmlab/mmsegmentation configs/upernet/upernet_r50_4xb4-160k_ade20k-512x512.py and its bases, with the plain
# stem. See docs/protocols/ade20k_upernet.md.
_base_ = ["_base_/runtime.py", "_base_/upernet.py", "_base_/ade20k.py"]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    auxiliary_head=dict(num_classes=150),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0001, power=0.9, begin=0, end=160000, by_epoch=False)]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
