"""Panoptic FPN with the stock nearest upsampling on the synthetic default."""

_base_ = [
    '../_base_/models/panoptic-fpn_r18_fpn_small.py',
    '../_base_/datasets/scenes_panoptic.py',
    '../_base_/schedules/scratch_12e.py',
    'mmdet::_base_/default_runtime.py',
]

num_things_classes = 8
num_stuff_classes = 3
model = dict(
    roi_head=dict(
        bbox_head=dict(num_classes=num_things_classes),
        mask_head=dict(num_classes=num_things_classes),
    ),
    semantic_head=dict(num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes),
    panoptic_fusion_head=dict(
        num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes
    ),
)
train_cfg = dict(val_interval=6)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
