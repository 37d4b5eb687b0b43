_base_ = './fpn_r50_nearest_4xb4-160k_ade20k-512x512.py'

model = dict(neck=dict(upsample_cfg=dict(type='carafe')))
