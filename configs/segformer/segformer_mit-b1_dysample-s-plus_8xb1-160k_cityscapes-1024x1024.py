_base_ = [
    'mmseg::segformer/segformer_mit-b1_8xb1-160k_cityscapes-1024x1024.py',
    '../_base_/upsamplers/dysample_s_plus.py',
    '../_base_/evaluators/boundary_iou.py',
]
custom_imports = dict(imports=['mmdysample'])
model = dict(decode_head=dict(type='UpsampleSegformerHead', upsample_cfg={{_base_.upsample_cfg}}))
val_evaluator = {{_base_.evaluator}}
test_evaluator = {{_base_.evaluator}}
