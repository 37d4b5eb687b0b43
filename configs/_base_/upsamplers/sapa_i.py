upsample_cfg = dict(type='sapa_i')
