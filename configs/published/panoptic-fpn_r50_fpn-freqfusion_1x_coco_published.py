_base_ = './panoptic-fpn_r50_fpn-nearest_1x_coco_published.py'

# The authors' module draws its own weights after the neck has drawn its own.
model = dict(
    neck=dict(
        init_upsamplers=False,
        upsample_cfg=dict(type='freqfusion', details=True, feature_resample_norm=False),
    )
)
