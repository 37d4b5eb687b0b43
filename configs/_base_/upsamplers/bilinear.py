upsample_cfg = dict(type='bilinear')
