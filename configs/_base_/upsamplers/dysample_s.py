upsample_cfg = dict(type='dysample_s')
