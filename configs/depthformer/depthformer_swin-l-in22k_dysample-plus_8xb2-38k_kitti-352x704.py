_base_ = './depthformer_swin-l-in22k_bilinear_8xb2-38k_kitti-352x704.py'

model = dict(decode_head=dict(upsample_cfg=dict(type='dysample_plus')))
