"""Necks and heads for mmdet."""

from mmdysample.det.fpn import UpsampleFPN
from mmdysample.det.mask_head import UpsampleFCNMaskHead
from mmdysample.det.maskformer_head import UpsampleMaskFormerHead
from mmdysample.det.necks import (
    UpsampleCSPNeXtPAFPN,
    UpsampleNASFPN,
    UpsamplePAFPN,
    UpsampleYOLOXPAFPN,
)
from mmdysample.det.panoptic_fpn_head import UpsamplePanopticFPNHead
from mmdysample.det.pixel_decoder import UpsampleMSDeformAttnPixelDecoder
from mmdysample.det.resample_pafpn import ResamplePAFPN

__all__ = [
    'ResamplePAFPN',
    'UpsampleCSPNeXtPAFPN',
    'UpsampleFCNMaskHead',
    'UpsampleFPN',
    'UpsampleMSDeformAttnPixelDecoder',
    'UpsampleMaskFormerHead',
    'UpsampleNASFPN',
    'UpsamplePAFPN',
    'UpsamplePanopticFPNHead',
    'UpsampleYOLOXPAFPN',
]
