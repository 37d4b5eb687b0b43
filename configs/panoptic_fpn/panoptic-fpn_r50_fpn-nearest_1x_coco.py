_base_ = 'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdysample'])
model = dict(neck=dict(type='UpsampleFPN', upsample_cfg=dict(type='nearest')))
