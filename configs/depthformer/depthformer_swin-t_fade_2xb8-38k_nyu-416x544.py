_base_ = './depthformer_swin-t_bilinear_2xb8-38k_nyu-416x544.py'

# The gate would blend in the skip, whose channels differ; it is concatenated anyway.
model = dict(decode_head=dict(upsample_cfg=dict(type='fade', gating=False)))
