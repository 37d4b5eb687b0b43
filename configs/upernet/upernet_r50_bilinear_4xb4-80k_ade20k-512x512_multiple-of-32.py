"""Tested with sides that are multiples of 32, as the published config says but did not do."""

_base_ = [
    './upernet_r50_bilinear_4xb4-80k_ade20k-512x512.py',
    '../_base_/datasets/ade20k_multiple_of_32.py',
]
val_dataloader = _base_.multiple_of_32
test_dataloader = _base_.multiple_of_32
