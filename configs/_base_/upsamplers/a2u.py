upsample_cfg = dict(type='a2u')
