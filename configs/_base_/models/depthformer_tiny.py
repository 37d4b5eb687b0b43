"""A DepthFormer for seconds on a CPU: the small one at half its widths and depths."""

_base_ = './depthformer_small.py'

channels = [16, 16, 32, 64, 128]
model = dict(
    backbone=dict(stem_channels=16, embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 4]),
    neck=dict(in_channels=channels, embedding_dim=16),
    decode_head=dict(in_channels=channels),
)
