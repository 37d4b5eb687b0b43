upsample_cfg = dict(type='carafe')
