"""Semantic segmentation of scenes with bilinear upsampling, a minute on a CPU core."""

_base_ = [
    '../_base_/models/segformer_r18_tiny.py',
    '../_base_/datasets/scenes_segmentation.py',
    '../_base_/schedules/demo.py',
    '../_base_/evaluators/boundary_iou.py',
    'mmseg::_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(size=(192, 256)), decode_head=dict(num_classes=11))
val_evaluator = {{_base_.evaluator}}
test_evaluator = {{_base_.evaluator}}
log_processor = dict(by_epoch=True)
train_dataloader = _base_.pairs_in_process
val_dataloader = _base_.in_process
test_dataloader = _base_.in_process
default_hooks = _base_.demo_hooks
custom_hooks = _base_.demo_custom_hooks
