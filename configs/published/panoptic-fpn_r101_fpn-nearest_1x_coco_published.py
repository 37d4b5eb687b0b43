"""Panoptic FPN as the published comparison of upsamplers trained it; its rows inherit this.

The neck's Xavier scheme reaches the upsamplers, and pictures are padded to multiples of 64. Rows
with a dynamic scope give it a bias.
"""

_base_ = '../panoptic_fpn/panoptic-fpn_r101_fpn-nearest_1x_coco.py'

model = dict(data_preprocessor=dict(pad_size_divisor=64), neck=dict(init_upsamplers=True))
