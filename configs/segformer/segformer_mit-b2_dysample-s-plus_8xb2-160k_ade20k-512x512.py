_base_ = [
    'mmseg::segformer/segformer_mit-b2_8xb2-160k_ade20k-512x512.py',
    '../_base_/models/segformer_published.py',
    '../_base_/datasets/ade20k_multiple_of_32.py',
    '../_base_/evaluators/boundary_iou.py',
]
model = dict(decode_head=dict(upsample_cfg=dict(type='dysample_s_plus'), **_base_.published_head))
val_dataloader = _base_.multiple_of_32
test_dataloader = _base_.multiple_of_32
val_evaluator = _base_.evaluator
test_evaluator = _base_.evaluator
