"""mmseg's FPN with a chosen upsampler."""

from mmseg.models.necks import FPN
from mmseg.registry import MODELS

from mmdysample.hosts.fpn import UpsampleFPNMixin


@MODELS.register_module()
class UpsampleFPN(UpsampleFPNMixin, FPN):
    """:class:`mmseg.models.necks.FPN` with any upsampler in its top-down path."""
