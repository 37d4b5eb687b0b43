_base_ = [
    '../_base_/models/depthformer_swin-t.py',
    '../_base_/datasets/nyu_depth.py',
    '../_base_/schedules/depth_38k.py',
]
# The gate blends in the skip, whose channels differ here; the decoder concatenates it anyway.
model = dict(decode_head=dict(upsample_cfg=dict(type='fade', gating=False)))
