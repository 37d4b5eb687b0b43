"""mmseg's MaskFormer head with a chosen upsampler; needs mmdet, as the stock head does."""

from mmseg.models.decode_heads import MaskFormerHead
from mmseg.registry import MODELS

from mmdysample.hosts.maskformer import UpsampleMaskFormerMixin


@MODELS.register_module()
class UpsampleMaskFormerHead(UpsampleMaskFormerMixin, MaskFormerHead):
    """:class:`mmseg.models.MaskFormerHead` with any upsampler in its pixel decoder."""
