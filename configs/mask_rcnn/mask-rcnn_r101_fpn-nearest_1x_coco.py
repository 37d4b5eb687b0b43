_base_ = 'mmdet::mask_rcnn/mask-rcnn_r101_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdysample'])
model = dict(neck=dict(type='UpsampleFPN', upsample_cfg=dict(type='nearest')))
