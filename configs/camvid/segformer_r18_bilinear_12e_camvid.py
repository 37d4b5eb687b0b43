"""Road scenes (CamVid): a complete example of a segmentation dataset of one's own.

The folder data/camvid holds images/{train,val}/NAME.jpg and annotations/{train,val}/NAME.png,
8-bit maps of class numbers with 255 where a pixel is to be ignored. That and the names of the
classes is all that mmseg needs: no dataset class has to be written.
"""

_base_ = [
    '../_base_/models/segformer_r18_small.py',
    '../_base_/schedules/scratch_segmentation_12e.py',
    '../_base_/evaluators/boundary_iou.py',
    'mmseg::_base_/default_runtime.py',
]

# modified: the dataset
dataset_type = 'BaseSegDataset'
data_root = 'data/camvid/'
metainfo = dict(
    classes=(
        'Sky',
        'Building',
        'Pole',
        'Road',
        'Pavement',
        'Tree',
        'SignSymbol',
        'Fence',
        'Car',
        'Pedestrian',
        'Bicyclist',
    ),
    palette=[
        [128, 128, 128],
        [128, 0, 0],
        [192, 192, 128],
        [128, 64, 128],
        [60, 40, 222],
        [128, 128, 0],
        [192, 128, 128],
        [64, 64, 128],
        [64, 0, 128],
        [64, 64, 0],
        [0, 128, 192],
    ],
)
crop_size = (224, 288)  # height and width, of images of 360 x 480
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        metainfo=metainfo,
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
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = {{_base_.evaluator}}
test_evaluator = {{_base_.evaluator}}

# modified: the crops and the classes
model = dict(data_preprocessor=dict(size=crop_size), decode_head=dict(num_classes=11))
log_processor = dict(by_epoch=True)
