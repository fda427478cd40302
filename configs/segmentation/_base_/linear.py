# A linear head on the last map of a frozen backbone.
#
# The output stride is that of the backbone: the runner sets strides and dilations.
_base_ = "resnet50.py"
model = dict(
    data_preprocessor=dict(size=(512, 512)),  # smaller crops are padded to this size, after normalisation
    backbone=dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), frozen_stages=4),
    decode_head=dict(
        type="LinearHead",
        in_channels=2048,
        in_index=3,
        channels=2048,
        num_classes=150,
        align_corners=False,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
