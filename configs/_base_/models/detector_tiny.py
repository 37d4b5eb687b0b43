"""What makes the small detectors tiny, seconds on a CPU core: a quarter of ResNet-18, width 64."""

tiny = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=200)),
)
tiny_boxes = dict(
    bbox_roi_extractor=dict(out_channels=64),
    bbox_head=dict(in_channels=64, fc_out_channels=128),
)
tiny_masks = dict(
    mask_roi_extractor=dict(out_channels=64),
    mask_head=dict(in_channels=64, conv_out_channels=32),
)
