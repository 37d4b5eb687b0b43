"""Mask R-CNN on cell nuclei: a complete example of an instance segmentation of one's own.

The folder data/nuclei holds train/, val/ and annotations/{train,val}.json in COCO format.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn_small.py',
    '../_base_/datasets/coco_own.py',
    '../_base_/schedules/scratch_12e.py',
    'mmdet::_base_/default_runtime.py',
]

# modified: the dataset
data_root = 'data/nuclei/'
metainfo = dict(classes=('nucleus',), palette=[(220, 20, 60)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader

# modified: up to 101 nuclei per image, more than the usual 100 detections. The metric's
# `bbox_mAP` and `segm_mAP` count 100 detections whatever it is told, so `nucleus_precision` is
# the AP to read: the same mean at the largest of proposal_nums, as all other columns are.
val_evaluator = [
    dict(
        type='CocoMetric',
        ann_file=data_root + 'annotations/val.json',
        metric=kind,
        prefix=kind,
        classwise=True,
        proposal_nums=(100, 200, 300),
    )
    for kind in ('bbox', 'segm')
]
test_evaluator = val_evaluator

# modified: one class of small round things, many in an image
model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[3])),  # boxes from 12 pixels up, the median
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),
    test_cfg=dict(rcnn=dict(max_per_img=300)),
)

train_cfg = dict(val_interval=6)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
