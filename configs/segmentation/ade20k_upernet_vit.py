# ADE20K semantic segmentation with UPerNet on a ViT-B/16, 80k iterations.
#
# Values: open-mmlab/mmsegmentation configs/vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py and its bases. See
# docs/protocols/ade20k_upernet_vit.md.
_base_ = "_base_/upernet_named.py"

model = dict(
    backbone=dict(name="timm:vit_base_patch16_224", options=dict(drop_path_rate=0.0)),
    neck=dict(type="MultiLevelNeck", in_channels=[768, 768, 768, 768], out_channels=768, scales=[4, 2, 1, 0.5]),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768, in_index=3),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0), norm=dict(decay_mult=0.0))
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type="PolyLR", eta_min=0.0, power=1.0, begin=1500, end=80000, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
