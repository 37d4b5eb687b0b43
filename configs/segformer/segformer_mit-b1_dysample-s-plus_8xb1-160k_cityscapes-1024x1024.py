_base_ = [
    'mmseg::segformer/segformer_mit-b1_8xb1-160k_cityscapes-1024x1024.py',
    '../_base_/models/segformer_published.py',
    '../_base_/evaluators/boundary_iou.py',
]
model = dict(decode_head=dict(upsample_cfg=dict(type='dysample_s_plus'), **_base_.published_head))
val_evaluator = _base_.evaluator
test_evaluator = _base_.evaluator
