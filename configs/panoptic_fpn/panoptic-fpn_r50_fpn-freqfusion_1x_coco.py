_base_ = './panoptic-fpn_r50_fpn-nearest_1x_coco.py'

model = dict(
    neck=dict(
        upsample_cfg=dict(type='freqfusion', details=True, feature_resample_norm=False),
    )
)
