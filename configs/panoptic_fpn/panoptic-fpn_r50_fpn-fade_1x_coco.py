_base_ = './panoptic-fpn_r50_fpn-nearest_1x_coco.py'

# The published detection code leaves the gate out: a pyramid adds the guide anyway.
model = dict(neck=dict(upsample_cfg=dict(type='fade', gating=False)))
