upsample_cfg = dict(type='dysample_plus')
