"""Transposed convolution behind the common interface."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.upsamplers.base import Upsampler, register_upsampler


@register_upsampler('deconv')
class Deconv(Upsampler):
    """Transposed convolution with stride ``s``, channels kept; the tables use 3x3, stride 2.

    Parameters are called as those of ``nn.ConvTranspose2d``, and start like them.

    Args:
        in_channels (int): Channels ``C``.
        scale_factor (int): The stride ``s``. Defaults to 2.
        kernel_size (int): Side of the kernel, at least ``scale_factor``. Defaults to 3.

    Raises:
        ValueError: If the kernel is smaller than the stride: pixels between would get no input.
    """

    def __init__(self, in_channels: int, scale_factor: int = 2, *, kernel_size: int = 3) -> None:
        super().__init__(in_channels, scale_factor)
        if not isinstance(kernel_size, int) or kernel_size < scale_factor:
            raise ValueError(
                f'kernel_size must be an integer >= scale_factor={scale_factor}, '
                f'got {kernel_size!r}'
            )
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(in_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(in_channels))
        self.init_weights()

    def init_weights(self) -> None:
        """Draw weight and bias as PyTorch's own layer does: uniform, within 1 / sqrt(fan-in)."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Convolve, then cut to ``size``."""
        padding = (self.kernel_size - 1) // 2
        out = F.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            stride=self.scale_factor,
            padding=padding,
            output_padding=self.scale_factor + 2 * padding - self.kernel_size,
        )
        return out[..., : size[0], : size[1]].to(x.dtype)

    def macs(self, height: int, width: int) -> int:
        """Every input value meets the whole kernel once."""
        return self.weight.numel() * height * width
