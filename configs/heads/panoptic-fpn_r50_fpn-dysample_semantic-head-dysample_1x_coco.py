_base_ = '../panoptic_fpn/panoptic-fpn_r50_fpn-dysample_1x_coco.py'

# modified: the six steps of x2 in the semantic branch
model = dict(semantic_head=dict(type='UpsamplePanopticFPNHead', upsample_cfg=dict(type='dysample')))
