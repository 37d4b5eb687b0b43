upsample_cfg = dict(type='indexnet')
