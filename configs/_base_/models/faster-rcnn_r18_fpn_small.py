"""Faster R-CNN small enough to train from scratch on a CPU: ResNet-18, pyramid of width 128."""

_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
custom_imports = dict(imports=['mmdysample'])

model = dict(
    backbone=dict(
        depth=18,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,  # nothing pretrained to freeze
    ),
    neck=dict(
        type='UpsampleFPN',
        in_channels=[64, 128, 256, 512],
        out_channels=128,
        upsample_cfg=dict(type='nearest'),
    ),
    rpn_head=dict(
        in_channels=128,
        feat_channels=128,
        anchor_generator=dict(scales=[4]),  # boxes from 16 pixels up
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(in_channels=128, fc_out_channels=256),
    ),
    train_cfg=dict(rcnn=dict(sampler=dict(num=128))),
)
