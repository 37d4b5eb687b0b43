"""Panoptic FPN's semantic branch with a chosen upsampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmdet.models.seg_heads import PanopticFPNHead

from mmdysample.hosts.swap import SwapUpsampleMixin, example_pyramid, swap_upsample


class UpsamplePanopticFPNHead(SwapUpsampleMixin, PanopticFPNHead):
    """:class:`mmdet.models.seg_heads.PanopticFPNHead` with a chosen upsampler.

    The branch brings level ``i`` to the finest resolution in ``i`` steps of x2, each after a
    convolution; every step gets weights of its own, in the order of the levels. The resize of
    the logits to the size of the image stays bilinear: it has no features to learn from.

    Args:
        in_channels (int): Channels of every level. Defaults to 256.
        end_level (int): The levels before this one are used. Defaults to 4.
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`, without guided
            types. Defaults to ``dict(type='dysample')``.
        **kwargs: Arguments of the stock head.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler or a guided one.
    """

    def __init__(
        self,
        *,
        in_channels: int = 256,
        end_level: int = 4,
        upsample_cfg: str | Mapping[str, Any] = 'dysample',
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels=in_channels, end_level=end_level, **kwargs)
        swap_upsample(self, upsample_cfg, example_pyramid([in_channels] * end_level))
