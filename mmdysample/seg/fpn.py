"""mmseg's FPN with a chosen upsampler."""

from mmseg.models.necks import FPN

from mmdysample.hosts.fpn import UpsampleFPNMixin


class UpsampleFPN(UpsampleFPNMixin, FPN):
    """:class:`mmseg.models.necks.FPN` with any upsampler in its top-down path."""
