"""Necks and heads for mmdet; importing this package registers them."""

from mmdysample.det.fpn import UpsampleFPN
from mmdysample.det.maskformer_head import UpsampleMaskFormerHead

__all__ = ['UpsampleFPN', 'UpsampleMaskFormerHead']
