"""Panoptic FPN learns two images of COCO by heart: a check of a whole panoptic pipeline.

The folder data/coco_panoptic_sample holds images/ and annotations/panoptic{.json,/}.
"""

_base_ = [
    '../_base_/models/panoptic-fpn_r18_fpn_small.py',
    'mmdet::_base_/default_runtime.py',
]

data_root = 'data/coco_panoptic_sample/'
scale = (384, 256)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanopticAnnotations'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadPanopticAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(
    type='CocoPanopticDataset',
    data_root=data_root,
    ann_file='annotations/panoptic.json',
    data_prefix=dict(img='images/', seg='annotations/panoptic/'),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline, test_mode=True, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoPanopticMetric',
    ann_file=data_root + 'annotations/panoptic.json',
    seg_prefix=data_root + 'annotations/panoptic/',
    nproc=1,
)
test_evaluator = val_evaluator

model = dict(
    neck=dict(upsample_cfg=dict(_delete_=True, type='dysample')),
    semantic_head=dict(type='UpsamplePanopticFPNHead', upsample_cfg=dict(type='dysample')),
)

max_iters = 400
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', eta_min=0, begin=30, end=max_iters, by_epoch=False),
]
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=200, max_keep_ckpts=1)
)
randomness = dict(seed=0)
