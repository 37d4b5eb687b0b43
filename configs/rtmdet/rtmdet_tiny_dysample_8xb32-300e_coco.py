_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmdysample'])
model = dict(neck=dict(type='UpsampleCSPNeXtPAFPN', upsample_cfg=dict(type='dysample')))
