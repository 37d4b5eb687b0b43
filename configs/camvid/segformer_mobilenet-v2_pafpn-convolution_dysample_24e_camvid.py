"""Road scenes (CamVid): a pyramid with a top-down and a bottom-up path before a SegFormer head.

The neck is mmdet's PAFPN with DySample in its top-down path; the rows differ in what halves a
level in the bottom-up path. mmdet has to be installed beside mmseg.
"""

_base_ = './segformer_mobilenet-v2_bilinear_24e_camvid.py'

channels = 64
model = dict(
    neck=dict(
        type='mmdet.ResamplePAFPN',
        in_channels=[24, 32, 96, 320],
        out_channels=channels,
        num_outs=4,
        upsample_cfg=dict(type='dysample'),
        downsample_cfg=dict(type='convolution'),
    ),
    # modified: the stock head, which resizes every level once
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[channels] * 4,
        in_index=[0, 1, 2, 3],
        channels=channels,
        num_classes=11,
        dropout_ratio=0.1,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', class_weight={{_base_.class_weight}}),
    ),
)
