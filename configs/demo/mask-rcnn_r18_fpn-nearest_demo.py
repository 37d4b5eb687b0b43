"""Instances of scenes with the stock nearest upsampling, a minute on a CPU core."""

_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn_tiny.py',
    '../_base_/datasets/scenes_instance.py',
    '../_base_/schedules/demo.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=8), mask_head=dict(num_classes=8)))
train_dataloader = _base_.pairs_in_process
val_dataloader = _base_.in_process
test_dataloader = _base_.in_process
default_hooks = _base_.demo_hooks
custom_hooks = _base_.demo_custom_hooks
