"""mmdet's PAFPN with a chosen upsampler in its top-down path, and point sampling bottom-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.necks import PAFPN
from mmengine.model import ModuleList
from torch import Tensor

from mmdysample.hosts.fpn import UpsampleFPNMixin
from mmdysample.ops import dysample_down
from mmdysample.upsamplers.dysample_down import DySampleDown

DOWNSAMPLING = ('convolution', 'sampling', 'shared')


class ResamplePAFPN(UpsampleFPNMixin, PAFPN):
    """:class:`mmdet.models.necks.PAFPN` with chosen resampling in both of its paths.

    The top-down path is that of :class:`UpsampleFPN`, guided types included. In the bottom-up
    path each level is halved and added to the next. With ``nearest`` and the convolution the
    outputs equal the stock neck's to the last bit.

    Args:
        *args: Positional arguments of the PAFPN.
        downsample_cfg (str or dict): What halves a level, by ``type``. ``'convolution'``: the
            stock neck's, 3x3 of stride 2. ``'sampling'``: a :class:`DySampleDown`, whose options
            go beside ``type``. ``'shared'``: point sampling with the offsets by which the same
            level was upsampled, without parameters; the upsampler must be a DySample.
            Defaults to ``'convolution'``.
        **kwargs: Keyword arguments of the PAFPN, and ``upsample_cfg`` and ``init_upsamplers`` as
            for :class:`UpsampleFPN`.

    Raises:
        TypeError: If ``downsample_cfg`` or ``upsample_cfg`` has unknown keys.
        ValueError: If one of them has an unknown type, or ``'shared'`` finds no offsets.
    """

    def __init__(
        self, *args: Any, downsample_cfg: str | Mapping[str, Any] = 'convolution', **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        options = {'type': downsample_cfg} if isinstance(downsample_cfg, str) else downsample_cfg
        options = dict(options)
        kind = options.pop('type', None)
        if kind not in DOWNSAMPLING:
            raise ValueError(f'type in downsample_cfg must be one of {DOWNSAMPLING}, got {kind!r}')
        self.shared = kind == 'shared'
        if kind == 'sampling':
            # Under the stock name. mmengine's list lets each keep its own initialisation.
            self.downsample_convs = ModuleList(
                DySampleDown(self.out_channels, **options) for _ in self.downsample_convs
            )
        elif options:
            raise TypeError(f'downsample_cfg of type {kind!r} takes no options, got {options}')
        if self.shared:
            del self.downsample_convs
            for upsample in self.upsample_modules:
                if not hasattr(upsample, 'sampling_positions'):
                    raise ValueError(
                        "downsample_cfg of type 'shared' needs a DySample in upsample_cfg, "
                        f'got {type(upsample).__name__}, which has no offsets to share'
                    )

    def bottom_up(
        self, levels: list[Tensor], merged: Sequence[Tensor], laterals: Sequence[Tensor]
    ) -> list[Tensor]:
        """Halve each level and add it to the next; see :meth:`UpsampleFPNMixin.bottom_up`."""
        for i, upsample in enumerate(self.upsample_modules):
            if self.shared:
                size = levels[i].shape[-2:]
                _, offset = upsample.sampling_positions(merged[i + 1], size, laterals[i])
                halved = dysample_down(levels[i], offset)
            else:
                halved = self.downsample_convs[i](levels[i])
            levels[i + 1] = levels[i + 1] + halved
        paired = zip(self.pafpn_convs, levels[1:], strict=True)
        return [levels[0], *(conv(level) for conv, level in paired)]
