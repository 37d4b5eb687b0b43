_base_ = './edsr-small_deblur_pixel-shuffle_20e_photos.py'

model = dict(upsample_cfg=dict(_delete_=True, type='bilinear'))
