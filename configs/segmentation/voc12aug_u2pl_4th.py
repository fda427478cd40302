# VOC 2012 (with SBD) semantic segmentation with U2PL, 1/4 of the training pictures (2646) labelled.
#
# See docs/protocols/voc12aug_u2pl_16th.md.
_base_ = "_base_/u2pl_voc12aug.py"

model = dict(epoch_iterations=496)  # 7936 unlabelled pictures, 4 on each of 4 GPUs
train_dataloader = dict(dataset=dict(fraction=4))
param_scheduler = [  # mmengine ends one step early, so that 39681 is the authors' 39680
    dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=39681, by_epoch=False)
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=39680, val_interval=3968)
default_hooks = dict(checkpoint=dict(interval=3968))
