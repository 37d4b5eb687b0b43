_base_ = './segformer_mobilenet-v2_bilinear_24e_camvid.py'

model = dict(decode_head=dict(upsample_cfg=dict(_delete_=True, type='sapa_b')))
