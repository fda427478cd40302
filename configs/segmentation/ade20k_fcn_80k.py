# ADE20K semantic segmentation with FCN-R50-D8, 80k iterations.
#
# Values: open-mmlab/mmsegmentation configs/fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py and its bases, with the plain stem
# of MMSelfSup. CVMI-Lab/SlotCon uses a protocol of this name. See docs/protocols/ade20k_fcn_80k.md.
_base_ = ["_base_/runtime.py", "_base_/fcn_d8.py", "_base_/ade20k.py"]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0001, power=0.9, begin=0, end=80000, by_epoch=False)]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
