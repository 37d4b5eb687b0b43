"""mmdet's FPN with a chosen upsampler."""

from mmdet.models.necks import FPN
from mmdet.registry import MODELS

from mmdysample.hosts.fpn import UpsampleFPNMixin


@MODELS.register_module()
class UpsampleFPN(UpsampleFPNMixin, FPN):
    """:class:`mmdet.models.necks.FPN` with any upsampler in its top-down path."""
