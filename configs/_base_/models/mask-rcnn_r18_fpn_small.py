"""Mask R-CNN small enough to train from scratch on a CPU: the small Faster R-CNN and masks."""

_base_ = './faster-rcnn_r18_fpn_small.py'

model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(pad_mask=True),
    roi_head=dict(
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=128,
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_head=dict(
            type='UpsampleFCNMaskHead',
            num_convs=2,
            in_channels=128,
            conv_out_channels=64,
            num_classes=80,
            upsample_cfg=dict(type='deconv', scale_factor=2),  # as in the stock head
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=28)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)
