_base_ = './segformer_mobilenet-v2_bilinear_8e_camvid-adopted.py'

model = dict(decode_head=dict(upsample_cfg=dict(_delete_=True, type='dysample_context')))
