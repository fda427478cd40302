# U2PL: a student and a teacher, DeepLab v3+ with output stride 8, half of each batch labelled.
#
# Values: Haochen-Wang409/U2PL experiments/{pascal/1464,cityscapes/744}/ours/config.yaml, train_semi.py, u2pl/models; the
# pages of the protocols list the differences.
_base_ = ["runtime.py", "resnet50.py"]
model = dict(
    type="U2PL",
    backbone=dict(
        strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), multi_grid=(4, 8, 16)
    ),  # MMSegmentation's are dilations
    decode_head=dict(
        type="RepresentingDeepLabHead",
        in_channels=[256, 2048],
        in_index=[0, 3],
        channels=256,
        dilations=(12, 24, 36),
        dropout_ratio=0.1,
        num_classes=19,
        align_corners=True,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),  # not used: the segmentor computes the losses
        init_cfg=None,  # PyTorch's own initialisation
    ),
    epochs=80,
    epoch_iterations=620,
    warm_up_epochs=1,
    ema_decay=0.99,
    drop_percent=80,
    low_entropy_threshold=20,
    mixing="cutmix",
    contrast_weight=0.25,
    contrast=dict(
        low_rank=3,
        high_rank=20,
        current_class_threshold=0.3,
        current_class_negative_threshold=1,
        num_queries=256,
        num_negatives=50,
        temperature=0.5,
    ),
    memory=(50000, 30000),
    test_cfg=dict(mode="whole"),
)
optim_wrapper = dict(optimizer=dict(lr=0.001, momentum=0.9, weight_decay=0.0001))
auto_scale_lr = dict(enable=False, base_batch_size=32)  # images per batch, over all GPUs, half of them labelled
custom_hooks = [dict(type="FollowStudent")]
