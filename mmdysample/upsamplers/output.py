"""The last layer of a network that makes pictures: upsample, then convolve to a few channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmdysample.upsamplers.base import build_upsampler


class UpsampleOutput(nn.Module):
    """Upsample a feature and convolve it to a picture: ``(N, C, H, W)`` to ``(N, C', sH, sW)``.

    The result is that of the upsampler and a 1x1 convolution one after the other. Where the
    upsampler is linear in its input, only projections to the few output channels are upsampled:
    with DySample, ``C'`` times its groups instead of ``C`` channels.

    Args:
        in_channels (int): Channels ``C``.
        out_channels (int): Channels ``C'``. Defaults to 3.
        scale_factor (int): The factor ``s``. Defaults to 2.
        upsample_cfg (str or dict): As for :func:`mmdysample.build_upsampler`; a type without a
            guide. Defaults to ``'dysample'``.

    Raises:
        TypeError: If ``upsample_cfg`` has unknown keys.
        ValueError: If it names an unknown or a guided upsampler.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 3,
        scale_factor: int = 2,
        upsample_cfg: str | Mapping[str, Any] = 'dysample',
    ) -> None:
        super().__init__()
        self.upsampler = build_upsampler(upsample_cfg, in_channels, scale_factor)
        if self.upsampler.guided:
            raise ValueError(f'upsample_cfg must name a type without a guide, got {upsample_cfg!r}')
        self.convolution = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample ``(N, C, H, W)`` and convolve it to ``(N, C', sH, sW)``."""
        return self.upsampler(x, convolution=self.convolution)
