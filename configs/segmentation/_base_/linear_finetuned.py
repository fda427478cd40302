# A linear decoder on the patch tokens of a ViT by name; everything is trained.
#
# Values: tue-mps/benchmark-vfm-ss training/linear_semantic.py, training/lightning_module.py, models/linear_decoder.py, main.py.
_base_ = ["runtime.py", "resnet50.py"]
model = dict(
    backbone=dict(
        _delete_=True,
        type="NamedBackbone",
        name="timm:vit_base_patch16_224",
        options=dict(),
        output_stride=0,
        frozen=False,
    ),
    decode_head=dict(
        type="FCNHead",  # without convolutions of its own it is a linear layer
        in_channels=768,
        in_index=3,
        channels=768,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0,
        num_classes=150,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0, avg_non_ignore=True),
    ),
    auxiliary_head=None,
)
optim_wrapper = dict(
    type="AmpOptimWrapper",
    loss_scale="dynamic",
    optimizer=dict(_delete_=True, type="AdamW", lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
