_base_ = './mask-rcnn_mobilenet-v2_fpn-nearest_12e_nuclei.py'

model = dict(neck=dict(upsample_cfg=dict(_delete_=True, type='carafe')))
