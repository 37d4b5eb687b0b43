_base_ = './mask-rcnn_r18_fpn_12e_nuclei.py'

model = dict(neck=dict(upsample_cfg=dict(_delete_=True, type='dysample_plus')))
