"""DepthFormer's decoder on a quarter of ResNet-18, for seconds on a CPU.

In short trials from random weights a ResNet learned faster than a Swin.
"""

_base_ = './depthformer_swin-t.py'

channels = [16, 32, 64, 128]
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNetV1c',
        depth=18,
        stem_channels=16,
        base_channels=16,
        norm_cfg=dict(type='BN'),
    ),
    neck=None,
    decode_head=dict(in_channels=channels, regression='sigmoid'),
    test_cfg=dict(_delete_=True, mode='whole'),
)
