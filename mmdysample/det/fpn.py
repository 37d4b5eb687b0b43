"""mmdet's FPN with a chosen upsampler."""

from mmdet.models.necks import FPN

from mmdysample.hosts.fpn import UpsampleFPNMixin


class UpsampleFPN(UpsampleFPNMixin, FPN):
    """:class:`mmdet.models.necks.FPN` with any upsampler in its top-down path."""
