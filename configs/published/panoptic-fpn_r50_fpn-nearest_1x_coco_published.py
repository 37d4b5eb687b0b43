"""Panoptic FPN as published; its rows inherit this. See faster-rcnn_r50 beside it."""

_base_ = '../panoptic_fpn/panoptic-fpn_r50_fpn-nearest_1x_coco.py'

model = dict(data_preprocessor=dict(pad_size_divisor=64), neck=dict(init_upsamplers=True))
