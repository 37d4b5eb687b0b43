_base_ = './depthformer_swin-t_bilinear_2xb8-38k_nyu-416x544.py'

model = dict(decode_head=dict(upsample_cfg=dict(type='dysample_s_plus')))
