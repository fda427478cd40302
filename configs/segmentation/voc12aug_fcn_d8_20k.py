# VOC 2012 (with SBD) semantic segmentation with FCN-R50-D8, 20k iterations: the protocol of DenseCL and MMSelfSup.
#
# Values: open-mmlab/mmselfsup configs/benchmarks/mmsegmentation/voc12aug/fcn_r50-d8_512x512_20k_voc12aug.py and its
# bases, which have the plain stem. See docs/protocols/voc12aug_fcn_d8_20k.md.
_base_ = ["_base_/runtime.py", "_base_/fcn_d8.py", "_base_/voc12aug.py"]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=21),
    auxiliary_head=dict(num_classes=21),
)
param_scheduler = [dict(type="PolyLR", eta_min=0.0001, power=0.9, begin=0, end=20000, by_epoch=False)]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
train_cfg = dict(type="IterBasedTrainLoop", max_iters=20000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
