"""Mask2Former's pixel decoder with a chosen upsampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.layers import MSDeformAttnPixelDecoder

from mmdysample.hosts.swap import SwapUpsampleMixin, example_pyramid, swap_upsample


class UpsampleMSDeformAttnPixelDecoder(SwapUpsampleMixin, MSDeformAttnPixelDecoder):
    """:class:`mmdet.models.layers.MSDeformAttnPixelDecoder` with a chosen upsampler.

    The levels that skip the deformable encoder, in Mask2Former the finest one, are reached from
    the encoder's output by a step of a feature pyramid; that step is what is swapped. mmseg's
    Mask2Former takes this decoder as ``mmdet.UpsampleMSDeformAttnPixelDecoder``.

    Args:
        in_channels (Sequence[int]): Channels of the backbone's levels, finest first.
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`, without guided
            types. Defaults to ``dict(type='dysample')``.
        **kwargs: Arguments of the stock decoder.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler or a guided one.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        *,
        upsample_cfg: str | Mapping[str, Any] = 'dysample',
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels=in_channels, **kwargs)
        swap_upsample(self, upsample_cfg, example_pyramid(in_channels))
