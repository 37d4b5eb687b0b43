"""Necks, heads and metrics for mmseg; importing this package registers them."""

from mmdysample.seg.fpn import UpsampleFPN

__all__ = ['UpsampleFPN']
