"""Necks and heads for mmdet; importing this package registers them."""

from mmdysample.det.fpn import UpsampleFPN

__all__ = ['UpsampleFPN']
