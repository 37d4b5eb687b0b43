_base_ = './faster-rcnn_mobilenet-v2_fpn-nearest_12e_bccd.py'

model = dict(neck=dict(upsample_cfg=dict(_delete_=True, type='dysample_plus')))
