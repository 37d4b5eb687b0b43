"""A SegFormer-style network for seconds on a CPU: the small one at half its widths."""

_base_ = './segformer_r18_small.py'

model = dict(
    backbone=dict(stem_channels=16, base_channels=16),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=64, dropout_ratio=0.0),
)
