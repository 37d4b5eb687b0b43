_base_ = './faster-rcnn_r50_fpn-nearest_1x_coco_published.py'

model = dict(neck=dict(upsample_cfg=dict(type='sapa_d')))
