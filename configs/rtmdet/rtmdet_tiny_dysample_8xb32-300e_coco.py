_base_ = [
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    '../_base_/upsamplers/dysample.py',
]
custom_imports = dict(imports=['mmdysample'])
model = dict(neck=dict(type='UpsampleCSPNeXtPAFPN', upsample_cfg={{_base_.upsample_cfg}}))
