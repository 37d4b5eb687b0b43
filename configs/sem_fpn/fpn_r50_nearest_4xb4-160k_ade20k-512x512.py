_base_ = [
    'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
    '../_base_/evaluators/boundary_iou.py',
]
custom_imports = dict(imports=['mmdysample'])
model = dict(neck=dict(type='UpsampleFPN', upsample_cfg=dict(type='nearest')))
val_evaluator = _base_.evaluator
test_evaluator = _base_.evaluator
