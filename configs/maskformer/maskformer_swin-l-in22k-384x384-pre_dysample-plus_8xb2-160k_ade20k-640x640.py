_base_ = './maskformer_swin-l-in22k-384x384-pre_nearest_8xb2-160k_ade20k-640x640.py'

model = dict(decode_head=dict(upsample_cfg=dict(type='dysample_plus')))
