"""The KITTI Eigen split, cropped and evaluated as by DepthFormer."""

dataset_type = 'KITTIDepthDataset'
data_root = 'data/kitti'
meta_keys = ('img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction', 'crop_box')

load_depth = dict(type='LoadDepthAnnotation', depth_rescale_factor=1 / 256)  # 16 bit, 1/256 m
pack = dict(type='PackSegInputs', meta_keys=meta_keys)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    load_depth,
    dict(type='KBCrop'),
    dict(type='RandomRotate', prob=0.5, degree=2.5, seg_pad_val=0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandomCrop', crop_size=(352, 704)),
    dict(type='DepthColorAug'),
    pack,
]
test_pipeline = [dict(type='LoadImageFromFile'), load_depth, dict(type='KBCrop'), pack]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='kitti_eigen_train.txt',
        data_prefix=dict(img_path='input', depth_map_path='gt_depth'),
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
        ann_file='kitti_eigen_test.txt',
        data_prefix=dict(img_path='input', depth_map_path='gt_depth'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='BenchmarkDepthMetric', crop_type='garg_crop', min_depth_eval=1e-3, max_depth_eval=80.0
)
test_evaluator = val_evaluator
