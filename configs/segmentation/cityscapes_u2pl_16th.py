# Cityscapes semantic segmentation with U2PL, 1/16 of the training pictures (186) labelled.
#
# See docs/protocols/cityscapes_u2pl_16th.md.
_base_ = "_base_/u2pl_cityscapes.py"

model = dict(epoch_iterations=174)  # 2789 unlabelled pictures, 2 on each of 8 GPUs
train_dataloader = dict(dataset=dict(fraction=16))
param_scheduler = [  # mmengine ends one step early, so that 34801 is the authors' 34800
    dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=34801, by_epoch=False)
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=34800, val_interval=3480)
default_hooks = dict(checkpoint=dict(interval=3480))
