_base_ = [
    'mmseg::segformer/segformer_mit-b5_8xb2-160k_ade20k-512x512.py',
    '../_base_/upsamplers/dysample_s_plus.py',
    '../_base_/evaluators/boundary_iou.py',
]
custom_imports = dict(imports=['mmdysample'])
model = dict(decode_head=dict(type='UpsampleSegformerHead', upsample_cfg={{_base_.upsample_cfg}}))
val_evaluator = {{_base_.evaluator}}
test_evaluator = {{_base_.evaluator}}
