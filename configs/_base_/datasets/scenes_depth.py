"""Metric depth of the synthetic default data."""

_base_ = './scenes.py'

dataset_type = 'ScenesDepthDataset'
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
train_dataloader = dict(drop_last=True, dataset=dict(type=dataset_type, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='BenchmarkDepthMetric', min_depth_eval=1e-3, max_depth_eval=10.0)
test_evaluator = val_evaluator
