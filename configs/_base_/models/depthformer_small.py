"""A DepthFormer small enough to train from scratch on a CPU: a third of Swin-T's width."""

_base_ = './depthformer_swin-t.py'

channels = [32, 32, 64, 128, 256]
model = dict(
    backbone=dict(
        stem_channels=32,
        embed_dims=32,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(in_channels=channels, embedding_dim=32, num_heads=4, num_points=1, dropout=0.0),
    decode_head=dict(in_channels=channels),
    test_cfg=dict(_delete_=True, mode='whole'),
)
