# Cityscapes semantic segmentation with U2PL, 1/8 of the training pictures (372) labelled.
#
# See docs/protocols/cityscapes_u2pl_16th.md.
_base_ = "_base_/u2pl_cityscapes.py"

model = dict(epoch_iterations=163)  # 2603 unlabelled pictures, 2 on each of 8 GPUs
train_dataloader = dict(dataset=dict(fraction=8))
param_scheduler = [  # mmengine ends one step early, so that 32601 is the authors' 32600
    dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=32601, by_epoch=False)
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=32600, val_interval=3260)
default_hooks = dict(checkpoint=dict(interval=3260))
