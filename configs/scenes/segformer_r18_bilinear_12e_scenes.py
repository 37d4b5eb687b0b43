"""Semantic segmentation of scenes with bilinear upsampling, minutes on two CPU cores."""

_base_ = [
    '../_base_/models/segformer_r18_small.py',
    '../_base_/datasets/scenes_segmentation.py',
    '../_base_/schedules/scratch_segmentation_12e.py',
    '../_base_/evaluators/boundary_iou.py',
    'mmseg::_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(size=(192, 256)), decode_head=dict(num_classes=11))
val_evaluator = {{_base_.evaluator}}
test_evaluator = {{_base_.evaluator}}
log_processor = dict(by_epoch=True)
