upsample_cfg = dict(type='pixel_shuffle')
