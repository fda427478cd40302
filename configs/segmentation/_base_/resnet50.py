# The backbone and its image preprocessing, as in pre-training. The stem is the plain 7x7; that of ResNetV1c would stay random.
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],  # RGB, for pixels from 0 to 255
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="ResNet",
        depth=50,
        stem_channels=64,
        base_channels=64,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        contract_dilation=True,
        style="pytorch",  # the stride sits in the 3x3 convolution
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
    ),
    train_cfg=dict(),
)
