_base_ = './faster-rcnn_r18_fpn_12e_scenes.py'

model = dict(neck=dict(upsample_cfg=dict(_delete_=True, type='dysample')))
