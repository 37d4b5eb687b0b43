_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdysample'])
model = dict(
    neck=dict(type='UpsampleYOLOXPAFPN', upsample_cfg=dict(_delete_=True, type='dysample'))
)
