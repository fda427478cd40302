# MaskFormer: 100 queries, each with a class and a mask; head, losses and optimiser.
#
# Values: open-mmlab/mmsegmentation configs/maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py.
_base_ = ["runtime.py", "resnet50.py"]
__attention = dict(embed_dims=256, num_heads=8, attn_drop=0.1, proj_drop=0.1, dropout_layer=None, batch_first=True)
model = dict(
    backbone=dict(strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), norm_eval=True),
    decode_head=dict(
        type="MaskFormerHead",
        in_channels=[256, 512, 1024, 2048],
        in_index=[0, 1, 2, 3],
        feat_channels=256,
        out_channels=256,
        num_classes=150,
        num_queries=100,
        pixel_decoder=dict(
            type="mmdet.PixelDecoder",
            norm_cfg=dict(type="GN", num_groups=32),
            act_cfg=dict(type="ReLU"),
        ),
        enforce_decoder_input_project=False,
        positional_encoding=dict(num_feats=128, normalize=True),
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=6,
            layer_cfg=dict(
                self_attn_cfg=__attention,
                cross_attn_cfg=__attention,
                ffn_cfg=dict(
                    embed_dims=256,
                    feedforward_channels=2048,
                    num_fcs=2,
                    act_cfg=dict(type="ReLU", inplace=True),
                    ffn_drop=0.1,
                    dropout_layer=None,
                    add_identity=True,
                ),
            ),
            init_cfg=None,
        ),
        loss_cls=dict(
            type="mmdet.CrossEntropyLoss",
            use_sigmoid=False,
            loss_weight=1.0,
            reduction="mean",
            class_weight=[1.0] * 150 + [0.1],  # the last class means that a query has found nothing
        ),
        loss_mask=dict(
            type="mmdet.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, reduction="mean", loss_weight=20.0
        ),
        loss_dice=dict(
            type="mmdet.DiceLoss",
            use_sigmoid=True,
            activate=True,
            reduction="mean",
            naive_dice=True,
            eps=1.0,
            loss_weight=1.0,
        ),
        train_cfg=dict(
            assigner=dict(
                type="mmdet.HungarianAssigner",
                match_costs=[
                    dict(type="mmdet.ClassificationCost", weight=1.0),
                    dict(type="mmdet.FocalLossCost", weight=20.0, binary_input=True),
                    dict(type="mmdet.DiceCost", weight=1.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type="mmdet.MaskPseudoSampler"),
        ),
    ),
    auxiliary_head=None,
    test_cfg=dict(mode="whole"),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.0001, betas=(0.9, 0.999), weight_decay=0.0001),
    clip_grad=dict(_delete_=True, max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
