_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdysample'])
model = dict(neck=dict(type='UpsampleFPN', upsample_cfg=dict(type='dysample')))
