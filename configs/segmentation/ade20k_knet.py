# ADE20K semantic segmentation with K-Net (FCN-R50-D8, three updates), 80k iterations.
#
# Values: open-mmlab/mmsegmentation configs/knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py and its bases, with
# the plain stem. See docs/protocols/ade20k_knet.md.
_base_ = ["_base_/knet.py", "_base_/ade20k.py"]

model = dict(data_preprocessor=dict(size=(512, 512)))
train_dataloader = dict(batch_size=2, num_workers=2)
