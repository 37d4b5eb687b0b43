_base_ = './densedepth_r18_bilinear_demo.py'

model = dict(decode_head=dict(upsample_cfg=dict(_delete_=True, type='carafe')))
