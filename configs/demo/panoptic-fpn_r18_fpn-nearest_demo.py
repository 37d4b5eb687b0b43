"""Panoptic segmentation of scenes with the stock nearest upsampling, a minute on a CPU core."""

_base_ = [
    '../_base_/models/panoptic-fpn_r18_fpn_tiny.py',
    '../_base_/datasets/scenes_panoptic.py',
    '../_base_/schedules/demo.py',
    'mmdet::_base_/default_runtime.py',
]

num_things_classes = 8
num_stuff_classes = 3
classes = dict(num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes)
model = dict(
    roi_head=dict(
        bbox_head=dict(num_classes=num_things_classes),
        mask_head=dict(num_classes=num_things_classes),
    ),
    semantic_head=classes,
    panoptic_fusion_head=classes,
)
train_dataloader = _base_.pairs_in_process
val_dataloader = _base_.in_process
test_dataloader = _base_.in_process
default_hooks = _base_.demo_hooks
custom_hooks = _base_.demo_custom_hooks
