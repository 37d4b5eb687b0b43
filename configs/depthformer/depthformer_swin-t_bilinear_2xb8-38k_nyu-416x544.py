_base_ = [
    '../_base_/models/depthformer_swin-t.py',
    '../_base_/datasets/nyu_depth.py',
    '../_base_/schedules/depth_38k.py',
]
model = dict(decode_head=dict(upsample_cfg=dict(type='bilinear')))
