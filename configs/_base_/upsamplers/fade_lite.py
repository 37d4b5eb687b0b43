upsample_cfg = dict(type='fade_lite')
