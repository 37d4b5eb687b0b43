_base_ = [
    'mmseg::upernet/upernet_r101_4xb4-80k_ade20k-512x512.py',
    '../_base_/evaluators/boundary_iou.py',
]
custom_imports = dict(imports=['mmdysample'])
model = dict(decode_head=dict(type='UpsampleUPerHead', upsample_cfg=dict(type='bilinear')))
val_evaluator = _base_.evaluator
test_evaluator = _base_.evaluator
