# Cityscapes semantic segmentation with FCN-R50-D8, 40k iterations: the protocol of DenseCL and MMSelfSup.
#
# Values: open-mmlab/mmselfsup configs/benchmarks/mmsegmentation/cityscapes/fcn_r50-d8_769x769_40k_cityscapes.py and its
# bases, which have the plain stem. See docs/protocols/cityscapes_fcn_d8_40k.md.
_base_ = ["_base_/runtime.py", "_base_/fcn_d8.py", "_base_/cityscapes.py"]

model = dict(
    data_preprocessor=dict(size=(769, 769)),
    decode_head=dict(align_corners=True),
    auxiliary_head=dict(align_corners=True),
    test_cfg=dict(mode="slide", crop_size=(769, 769), stride=(513, 513)),
)
train_dataloader = dict(num_workers=2)
param_scheduler = [dict(type="PolyLR", eta_min=0.0001, power=0.9, begin=0, end=40000, by_epoch=False)]
auto_scale_lr = dict(enable=False, base_batch_size=8)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=40000, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
