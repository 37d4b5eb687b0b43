upsample_cfg = dict(type='deconv')
