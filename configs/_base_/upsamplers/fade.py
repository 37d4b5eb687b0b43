upsample_cfg = dict(type='fade')
