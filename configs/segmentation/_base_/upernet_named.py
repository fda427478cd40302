# What the protocols of UPerNet on ViT, Swin and ConvNeXt share: ADE20K, AdamW, warm-up and linear decay.
#
# Values: open-mmlab/mmsegmentation configs/vit, configs/swin, configs/convnext, which agree in them.
_base_ = ["runtime.py", "upernet.py", "ade20k.py"]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type="NamedBackbone",
        name="timm:vit_base_patch16_224",
        options=dict(),
        output_stride=0,
        frozen=False,
    ),
    auxiliary_head=dict(num_classes=150),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=0.00006, betas=(0.9, 0.999), weight_decay=0.01),
)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)  # images per batch, over all GPUs
