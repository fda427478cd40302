# ADE20K semantic segmentation with UPerNet on ConvNeXt-T, 160k iterations.
#
# Values: open-mmlab/mmsegmentation configs/convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py and its bases. See
# docs/protocols/ade20k_upernet_convnext.md.
_base_ = "_base_/upernet_named.py"

model = dict(
    backbone=dict(name="timm:convnext_tiny", options=dict(drop_path_rate=0.4)),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    loss_scale="dynamic",
    optimizer=dict(lr=0.0001, weight_decay=0.05),
    constructor="StageDecay",
    paramwise_cfg=dict(decay_rate=0.9, num_layers=6),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="PolyLR", eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
