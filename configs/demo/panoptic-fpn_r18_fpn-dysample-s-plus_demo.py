_base_ = './panoptic-fpn_r18_fpn-nearest_demo.py'

model = dict(neck=dict(upsample_cfg=dict(_delete_=True, type='dysample_s_plus')))
