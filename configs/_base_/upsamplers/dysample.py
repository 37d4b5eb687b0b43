upsample_cfg = dict(type='dysample')
