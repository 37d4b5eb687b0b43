"""mmdet's necks beyond FPN with a chosen upsampler in their top-down path.

All of them keep the parameter names of the stock neck; ``upsample_modules`` holds one upsampler
for each level that is upsampled, the coarsest first.
"""

from mmdet.models import necks

from mmdysample.hosts.swap import SwapPyramidMixin


class UpsamplePAFPN(SwapPyramidMixin, necks.PAFPN):
    """:class:`mmdet.models.necks.PAFPN` with a chosen upsampler."""


class UpsampleNASFPN(SwapPyramidMixin, necks.NASFPN):
    """:class:`mmdet.models.necks.NASFPN` with a chosen upsampler."""


class UpsampleYOLOXPAFPN(SwapPyramidMixin, necks.YOLOXPAFPN):
    """:class:`mmdet.models.necks.YOLOXPAFPN`, the neck of YOLOX, with a chosen upsampler."""


class UpsampleCSPNeXtPAFPN(SwapPyramidMixin, necks.CSPNeXtPAFPN):
    """:class:`mmdet.models.necks.CSPNeXtPAFPN`, the neck of RTMDet, with a chosen upsampler."""
