_base_ = 'mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmdysample'])
model = dict(neck=dict(type='UpsampleCSPNeXtPAFPN', upsample_cfg=dict(type='dysample')))
