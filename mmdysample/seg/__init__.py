"""Necks, heads and metrics for mmseg."""

from importlib.util import find_spec

from mmdysample.seg.boundary_iou import BoundaryIoUMetric
from mmdysample.seg.fpn import UpsampleFPN
from mmdysample.seg.segformer_head import UpsampleSegformerHead
from mmdysample.seg.uper_head import UpsampleUPerHead

__all__ = ['BoundaryIoUMetric', 'UpsampleFPN', 'UpsampleSegformerHead', 'UpsampleUPerHead']

if find_spec('mmdet') is not None:  # mmseg's MaskFormer head is mmdet's
    from mmdysample.seg.maskformer_head import UpsampleMaskFormerHead

    __all__ += ['UpsampleMaskFormerHead']
