_base_ = './segformer_mobilenet-v2_pafpn-convolution_dysample_24e_camvid.py'

model = dict(neck=dict(downsample_cfg=dict(type='sampling')))
