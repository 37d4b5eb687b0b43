_base_ = ['./panoptic-fpn_r18_fpn_small.py', './detector_tiny.py']

model = dict(
    **_base_.tiny,
    roi_head=dict(**_base_.tiny_boxes, **_base_.tiny_masks),
    semantic_head=dict(in_channels=64, inner_channels=32),
)
