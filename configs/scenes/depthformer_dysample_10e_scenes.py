_base_ = './depthformer_bilinear_10e_scenes.py'

model = dict(decode_head=dict(upsample_cfg=dict(_delete_=True, type='dysample')))
