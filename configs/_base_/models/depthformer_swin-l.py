"""DepthFormer with Swin-L pretrained on ImageNet-22K."""

_base_ = './depthformer_swin-t.py'

channels = [64, 192, 384, 768, 1536]
model = dict(
    backbone=dict(
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/'
            'swin_large_patch4_window7_224_22k_20220412-aeecf2aa.pth',
        ),
    ),
    neck=dict(in_channels=channels, embedding_dim=512),
    decode_head=dict(in_channels=channels),
)
