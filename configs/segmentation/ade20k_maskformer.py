# ADE20K semantic segmentation with MaskFormer-R50, 160k iterations.
#
# Values: open-mmlab/mmsegmentation configs/maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py and its bases. See
# docs/protocols/ade20k_maskformer.md.
_base_ = ["_base_/maskformer.py", "_base_/ade20k.py"]

model = dict(data_preprocessor=dict(size=(512, 512)))
train_dataloader = dict(batch_size=2, num_workers=2)
param_scheduler = [dict(type="PolyLR", eta_min=0, power=0.9, begin=0, end=160000, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
