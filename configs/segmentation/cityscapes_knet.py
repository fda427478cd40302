# Cityscapes semantic segmentation with K-Net (FCN-R50-D8, three updates), 80k iterations.
#
# Nobody has published this protocol: it is ade20k_knet with the images of open-mmlab/mmsegmentation
# configs/_base_/datasets/cityscapes.py. See docs/protocols/cityscapes_knet.md.
_base_ = ["_base_/knet.py", "_base_/cityscapes_512x1024.py"]

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    decode_head=dict(
        kernel_update_head=[dict(head, num_classes=19) for head in _base_.model.decode_head.kernel_update_head],
        kernel_generate_head=dict(num_classes=19),
    ),
    auxiliary_head=dict(num_classes=19),
)
