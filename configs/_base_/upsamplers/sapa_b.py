upsample_cfg = dict(type='sapa_b')
