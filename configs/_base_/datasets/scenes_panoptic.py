"""Panoptic segmentation on the synthetic default data."""

_base_ = './scenes_detection.py'

dataset_type = 'ScenesPanopticDataset'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadPanopticAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),  # box heads ask for the factor even if it is 1
    dict(type='LoadPanopticAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(dataset=dict(type=dataset_type, pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(type=dataset_type, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='CocoPanopticMetric',
    ann_file='data/scenes/annotations/panoptic_val.json',  # below data_root
    seg_prefix='data/scenes/annotations/panoptic_val/',
    nproc=1,
)
test_evaluator = val_evaluator
