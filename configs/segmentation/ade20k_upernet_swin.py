# ADE20K semantic segmentation with UPerNet on Swin-T, 160k iterations.
#
# Values: open-mmlab/mmsegmentation configs/swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py and its
# bases. See docs/protocols/ade20k_upernet_swin.md.
_base_ = "_base_/upernet_named.py"

model = dict(
    backbone=dict(
        name="timm:swin_tiny_patch4_window7_224",
        options=dict(drop_path_rate=0.3, embed_dim=96, num_heads=[3, 6, 12, 24]),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0), norm=dict(decay_mult=0.0))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="PolyLR", eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
