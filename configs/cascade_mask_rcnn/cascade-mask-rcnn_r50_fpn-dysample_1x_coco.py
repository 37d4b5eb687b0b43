_base_ = [
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/upsamplers/dysample.py',
]
custom_imports = dict(imports=['mmdysample'])
model = dict(neck=dict(type='UpsampleFPN', upsample_cfg={{_base_.upsample_cfg}}))
