"""Super-resolution x2 of road scenes (CamVid) and cell nuclei: a small EDSR, trained from scratch.

Only the pictures of data/camvid and data/nuclei are read. The coarse ones are made from them, see
DegradePreprocessor; PSNR and SSIM are of the luma without a border of as many pixels as the factor.
"""

_base_ = 'mmseg::_base_/default_runtime.py'

custom_imports = dict(imports=['mmdysample'], allow_failed_imports=False)
scale_factor = 2
model = dict(
    type='SuperResolver',
    scale_factor=scale_factor,
    upsample_cfg=dict(type='pixel_shuffle'),
)

# mmseg's dataset without annotations lists the pictures of a folder.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=(96, 96)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomFlip', prob=0.5, direction='vertical'),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='BaseSegDataset',
                data_root=root,
                data_prefix=dict(img_path=folder),
                pipeline=train_pipeline,
            )
            for root, folder in (('data/camvid', 'images/train'), ('data/nuclei', 'train'))
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='BaseSegDataset',
                data_root=root,
                data_prefix=dict(img_path=folder),
                pipeline=test_pipeline,
            )
            for root, folder in (('data/camvid', 'images/val'), ('data/nuclei', 'val'))
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='PictureMetric', border=scale_factor)
test_evaluator = val_evaluator

max_epochs = 20
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
param_scheduler = dict(
    type='CosineAnnealingLR',
    eta_min=0,
    begin=0,
    end=max_epochs,
    T_max=max_epochs,
    by_epoch=True,
    convert_to_iter_based=True,
)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
)
custom_hooks = [dict(type='EpochSeedHook')]
log_processor = dict(by_epoch=True)
