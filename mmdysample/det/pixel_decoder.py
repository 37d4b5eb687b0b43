"""Mask2Former's pixel decoder with a chosen upsampler."""

from mmdet.models.layers import MSDeformAttnPixelDecoder

from mmdysample.hosts.swap import SwapPyramidMixin


class UpsampleMSDeformAttnPixelDecoder(SwapPyramidMixin, MSDeformAttnPixelDecoder):
    """:class:`mmdet.models.layers.MSDeformAttnPixelDecoder` with a chosen upsampler.

    The levels that skip the deformable encoder, in Mask2Former the finest one, are reached from
    the encoder's output by a step of a feature pyramid; that step is what is swapped. mmseg's
    Mask2Former takes this decoder as ``mmdet.UpsampleMSDeformAttnPixelDecoder``.
    """
