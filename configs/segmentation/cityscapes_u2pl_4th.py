# Cityscapes semantic segmentation with U2PL, 1/4 of the training pictures (744) labelled.
#
# See docs/protocols/cityscapes_u2pl_16th.md.
_base_ = "_base_/u2pl_cityscapes.py"

model = dict(epoch_iterations=139)  # 2231 unlabelled pictures, 2 on each of 8 GPUs
train_dataloader = dict(dataset=dict(fraction=4))
param_scheduler = [  # mmengine ends one step early, so that 27801 is the authors' 27800
    dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=27801, by_epoch=False)
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=27800, val_interval=2780)
default_hooks = dict(checkpoint=dict(interval=2780))
