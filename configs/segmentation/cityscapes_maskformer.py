# Cityscapes semantic segmentation with MaskFormer-R50, 90k iterations.
#
# Nobody has published this protocol for ResNet-50: it is ade20k_maskformer with the images of open-mmlab/mmsegmentation
# configs/_base_/datasets/cityscapes.py and the iterations of facebookresearch/MaskFormer configs/cityscapes-19 (ResNet-101).
# See docs/protocols/cityscapes_maskformer.md.
_base_ = ["_base_/maskformer.py", "_base_/cityscapes_512x1024.py"]

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(num_classes=19, loss_cls=dict(class_weight=[1.0] * 19 + [0.1])),
)
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=90000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=90000, val_interval=9000)
default_hooks = dict(checkpoint=dict(interval=9000))
