# VOC 2012 (with SBD) semantic segmentation with U2PL, 1/16 of the training pictures (662) labelled.
#
# See docs/protocols/voc12aug_u2pl_16th.md.
_base_ = "_base_/u2pl_voc12aug.py"

model = dict(epoch_iterations=620)  # 9920 unlabelled pictures, 4 on each of 4 GPUs
train_dataloader = dict(dataset=dict(fraction=16))
param_scheduler = [  # mmengine ends one step early, so that 49601 is the authors' 49600
    dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=49601, by_epoch=False)
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=49600, val_interval=4960)
default_hooks = dict(checkpoint=dict(interval=4960))
