"""A SegFormer-style network small enough to train from scratch on a CPU: half-width ResNet-18."""

custom_imports = dict(imports=['mmdysample'])

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        stem_channels=32,
        base_channels=32,
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        type='UpsampleSegformerHead',
        upsample_cfg=dict(type='bilinear'),
        cascade=True,  # bilinear climbs in steps of x2 as the others do: one thing differs
        in_channels=[32, 64, 128, 256],
        in_index=[0, 1, 2, 3],
        channels=96,
        dropout_ratio=0.1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
