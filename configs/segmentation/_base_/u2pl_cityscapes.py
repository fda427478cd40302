# Data and settings of U2PL on Cityscapes. A protocol adds the fraction of labelled pictures and the iterations.
_base_ = ["u2pl.py", "data.py"]
__augmented = [
    dict(type="ResizeByFactor", ratio_range=(0.5, 2.0)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="RandomCrop", crop_size=(769, 769), cat_max_ratio=1.0),
    dict(type="PackSegInputs"),
]
model = dict(
    data_preprocessor=dict(size=(769, 769)),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=1024,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=19,
        align_corners=True,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=0.4),  # its weight is used, and OHEM's loss
        init_cfg=None,
    ),
    epochs=200,
    warm_up_epochs=0,
    ohem=dict(thresh=0.7, min_kept=100000),
    contrast_weight=0.125,
    test_cfg=dict(mode="slide", crop_size=(769, 769), stride=(513, 513)),
)
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=0.0005))
train_dataloader = dict(
    batch_size=4,  # per GPU; the runner sets base_batch_size / GPUs unless this is overridden
    num_workers=2,
    sampler=dict(_delete_=True, type="InTurns"),
    dataset=dict(
        type="PartlyLabelled",
        published="cityscapes",
        fraction=16,
        datasets=[
            dict(
                type="CityscapesDataset",
                data_root="data/cityscapes",
                data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
                pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), *__augmented],
            )
        ],
        unlabelled_pipeline=[dict(type="LoadImageFromFile"), *__augmented],
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="CityscapesDataset",
        data_root="data/cityscapes",
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    ),
)
