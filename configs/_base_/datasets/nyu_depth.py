"""NYU Depth v2 in the folders that mmseg documents, cropped and evaluated as by DepthFormer."""

dataset_type = 'NYUDataset'
data_root = 'data/nyu'
meta_keys = ('img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction')

load_depth = dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3)  # 16 bit, millimetres
pack = dict(type='PackSegInputs', meta_keys=meta_keys)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    load_depth,
    dict(type='NYUCrop'),
    dict(type='RandomRotate', prob=0.5, degree=2.5, seg_pad_val=0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=(416, 544)),
    dict(type='DepthColorAug', brightness_range=(0.75, 1.25)),
    pack,
]
test_pipeline = [dict(type='LoadImageFromFile'), load_depth, pack]
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', depth_map_path='annotations/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/test', depth_map_path='annotations/test'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='BenchmarkDepthMetric', crop_type='nyu_crop', min_depth_eval=1e-3, max_depth_eval=10.0
)
test_evaluator = val_evaluator
