"""Nearest and bilinear interpolation behind the common interface."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.upsamplers.base import Upsampler, check_flags, register_upsampler


@register_upsampler('interpolate')
@register_upsampler('nearest', mode='nearest')
@register_upsampler('bilinear', mode='bilinear')
class Interpolate(Upsampler):
    """``torch.nn.functional.interpolate``, with its own meaning of ``size``.

    Unlike the learned upsamplers it *stretches* to ``size`` and reaches any size, so a network
    with this upsampler equals the stock one to the last bit.

    Args:
        in_channels (int): Channels of the feature. Any number is accepted in forward.
        scale_factor (int): Used when forward gets no ``size``. Defaults to 2.
        mode (str): ``'nearest'``, ``'bilinear'`` or another 2-D mode of ``F.interpolate``.
            Defaults to ``'nearest'``.
        align_corners (bool, optional): As in ``F.interpolate``, for the modes ``'bilinear'`` and
            ``'bicubic'`` only. Defaults to None.

    Raises:
        ValueError: If ``mode`` is not one of those, or has no corners to align.
        TypeError: If ``align_corners`` is neither a bool nor None.
    """

    shown = ('mode',)
    modes = ('nearest', 'nearest-exact', 'bilinear', 'bicubic', 'area')
    taps = dict(bilinear=4, bicubic=16)

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        mode: str = 'nearest',
        align_corners: bool | None = None,
    ) -> None:
        super().__init__(in_channels, scale_factor)
        if mode not in self.modes:
            raise ValueError(f'mode must be one of {self.modes}, got {mode!r}')
        if align_corners is not None:
            check_flags(align_corners=align_corners)
            if mode not in self.taps:
                raise ValueError(
                    f'align_corners is an option of the modes {list(self.taps)} only, got '
                    f'align_corners={align_corners} with mode={mode!r}'
                )
        self.mode = mode
        self.align_corners = align_corners

    def output_size(self, x: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
        """Any positive size is in reach of an interpolation."""
        if size is None:
            return super().output_size(x, None)
        if not torch.jit.is_tracing() and min(size) < 1:
            raise ValueError(f'size must be positive, got {tuple(size)}')
        return (size[0], size[1])

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Interpolate ``x`` to ``size``."""
        return F.interpolate(x, size=size, mode=self.mode, align_corners=self.align_corners)

    def upsample_and_convolve(
        self, convolution: nn.Conv2d, x: Tensor, guide: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        """Convolve first: an output value is a sum of inputs whose weights sum to one."""
        return self.upsample(convolution(x), guide, size)

    def macs(self, height: int, width: int) -> int:
        """Taps per output value; modes that only copy or average have none."""
        outputs = self.in_channels * self.scale_factor**2 * height * width
        return self.taps.get(self.mode, 0) * outputs
