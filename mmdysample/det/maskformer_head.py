"""mmdet's MaskFormer with a chosen upsampler in its pixel decoder."""

from mmdet.models.dense_heads import MaskFormerHead

from mmdysample.hosts.maskformer import UpsampleMaskFormerMixin


class UpsampleMaskFormerHead(UpsampleMaskFormerMixin, MaskFormerHead):
    """:class:`mmdet.models.MaskFormerHead` with any upsampler in its pixel decoder."""
