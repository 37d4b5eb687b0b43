"""mmseg's MaskFormer head with a chosen upsampler; needs mmdet, as the stock head does."""

from mmseg.models.decode_heads import MaskFormerHead

from mmdysample.hosts.maskformer import UpsampleMaskFormerMixin


class UpsampleMaskFormerHead(UpsampleMaskFormerMixin, MaskFormerHead):
    """:class:`mmseg.models.MaskFormerHead` with any upsampler in its pixel decoder."""
