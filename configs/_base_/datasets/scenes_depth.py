"""Metric depth of the synthetic default data."""

_base_ = './scenes.py'

dataset_type = 'ScenesDepthDataset'
data_root = {{_base_.data_root}}
scenes = {{_base_.scenes}}
meta_keys = ('img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction')

load_depth = dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3)  # 16 bit, millimetres
pack = dict(type='PackSegInputs', meta_keys=meta_keys)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    load_depth,
    dict(type='RandomFlip', prob=0.5),
    pack,
]
test_pipeline = [dict(type='LoadImageFromFile'), load_depth, pack]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        scenes=scenes,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='val',
        scenes=scenes,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='BenchmarkDepthMetric', min_depth_eval=1e-3, max_depth_eval=10.0)
test_evaluator = val_evaluator
