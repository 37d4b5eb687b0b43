upsample_cfg = dict(type='nearest')
