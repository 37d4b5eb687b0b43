"""mmdet's necks beyond FPN with a chosen upsampler in their top-down path.

All of them keep the parameter names of the stock neck; ``upsample_modules`` holds one upsampler
for each level that is upsampled, the coarsest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models import necks

from mmdysample.hosts.swap import SwapUpsampleMixin, example_pyramid, swap_upsample


class _UpsampleNeck(SwapUpsampleMixin):
    """Swaps the upsampling of a neck that takes a pyramid of ``in_channels``.

    Args:
        in_channels (Sequence[int]): Channels of the input levels, finest first.
        *args: Further positional arguments of the stock neck.
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`, without guided
            types. Takes the place of the stock option of this name.
            Defaults to ``dict(type='dysample')``.
        **kwargs: Keyword arguments of the stock neck.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown upsampler or a guided one.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *args: Any,
        upsample_cfg: str | Mapping[str, Any] = 'dysample',
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, *args, **kwargs)
        swap_upsample(self, upsample_cfg, example_pyramid(in_channels))


class UpsamplePAFPN(_UpsampleNeck, necks.PAFPN):
    """:class:`mmdet.models.necks.PAFPN` with a chosen upsampler."""


class UpsampleNASFPN(_UpsampleNeck, necks.NASFPN):
    """:class:`mmdet.models.necks.NASFPN` with a chosen upsampler."""


class UpsampleYOLOXPAFPN(_UpsampleNeck, necks.YOLOXPAFPN):
    """:class:`mmdet.models.necks.YOLOXPAFPN`, the neck of YOLOX, with a chosen upsampler."""


class UpsampleCSPNeXtPAFPN(_UpsampleNeck, necks.CSPNeXtPAFPN):
    """:class:`mmdet.models.necks.CSPNeXtPAFPN`, the neck of RTMDet, with a chosen upsampler."""
