"""MaskFormer's pixel decoder with a chosen upsampler, shared by mmdet's and mmseg's head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.layers import PixelDecoder
from mmengine.model import ModuleList
from torch import Tensor

from mmdysample.hosts.fpn import check_one_batch
from mmdysample.upsamplers import build_upsampler


class UpsamplePixelDecoder(PixelDecoder):
    """:class:`mmdet.models.layers.PixelDecoder` with any upsampler in its top-down path.

    ``upsample_modules[i]`` upsamples towards level ``i``. With ``nearest`` the outputs equal the
    stock decoder's to the last bit.

    Args:
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`.
        **kwargs: Arguments of the stock decoder.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler.
    """

    def __init__(self, upsample_cfg: str | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        channels = kwargs['feat_channels']
        self.upsample_modules = ModuleList(
            build_upsampler(upsample_cfg, channels) for _ in self.lateral_convs
        )

    def forward(
        self, feats: Sequence[Tensor], batch_img_metas: list[dict]
    ) -> tuple[Tensor, Tensor]:
        """Decode.

        Args:
            feats (Sequence[Tensor]): The backbone's maps ``(N, C_i, H_i, W_i)``, finest first.
            batch_img_metas (list[dict]): Not read.

        Returns:
            tuple[Tensor, Tensor]: The mask feature ``(N, out_channels, H_0, W_0)`` and the
            coarsest of ``feats``, the memory of the transformer.

        Raises:
            ValueError: If the batch or the size of a level does not fit.
        """
        check_one_batch(feats)
        y = self.last_feat_conv(feats[-1])
        for i in range(self.num_inputs - 2, -1, -1):
            finer = self.lateral_convs[i](feats[i])
            y = finer + self.upsample_modules[i](y, guide=finer, size=finer.shape[-2:])
            y = self.output_convs[i](y)
        return self.mask_feature(y), feats[-1]


class UpsampleMaskFormerMixin:
    """Gives a stock MaskFormer head's pixel decoder an upsampler; put it before the head class.

    The swap happens in the head, because the stock heads project the memory for a decoder of
    exactly the type ``PixelDecoder`` only: a subclass named in the config would miss the
    projection. Parameter names stay the stock ones, plus ``pixel_decoder.upsample_modules``.

    Args:
        pixel_decoder (dict): The stock config, of type ``PixelDecoder``.
        upsample_cfg (str or dict, optional): An upsampler by ``type``, as for
            :func:`mmdysample.build_upsampler`. Defaults to ``dict(type='dysample')``.
        **kwargs: Arguments of the stock head.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler, or the pixel decoder is of another type.
    """

    def __init__(
        self,
        *,
        pixel_decoder: Mapping[str, Any],
        upsample_cfg: str | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        decoder_cfg = dict(pixel_decoder)
        super().__init__(pixel_decoder=decoder_cfg, **kwargs)  # which adds the channels to it
        if type(self.pixel_decoder) is not PixelDecoder:
            raise ValueError(
                'pixel_decoder must be of type PixelDecoder, whose top-down path is all it has, '
                f'got {decoder_cfg["type"]!r}'
            )
        options = {k: v for k, v in decoder_cfg.items() if k not in ('type', '_scope_')}
        self.pixel_decoder = UpsamplePixelDecoder(
            dict(type='dysample') if upsample_cfg is None else upsample_cfg, **options
        )
