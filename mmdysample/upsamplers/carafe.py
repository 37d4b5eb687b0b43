"""CARAFE: content-aware reassembly of features (arXiv 1905.02188)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.backend import check_backend
from mmdysample.ops.checks import check_multiple, check_positive
from mmdysample.ops.layers import PixelConv2d
from mmdysample.ops.reassembly import reassemble, softmax_kernels
from mmdysample.upsamplers.base import Upsampler, register_upsampler


@register_upsampler('carafe')
class CARAFE(Upsampler):
    """Reassemble windows of ``x`` with kernels predicted from ``x`` itself (Sec. 3).

    Parameters carry the names and shapes of ``mmcv.ops.CARAFEPack``, so its weights load with
    ``strict=True``.

    Args:
        in_channels (int): Channels ``C``, a multiple of ``up_group``.
        scale_factor (int): The factor ``s``. Defaults to 2.
        up_kernel (int): Side ``k`` of the reassembled window, odd. Defaults to 5.
        up_group (int): Channel groups with kernels of their own. Defaults to 1.
        encoder_kernel (int): Side of the convolution that predicts kernels, odd. Defaults to 3.
        encoder_dilation (int): Its dilation. Defaults to 1.
        compressed_channels (int): Channels that it reads. Defaults to 64.
        backend (str): ``'auto'``, ``'torch'``, ``'native'`` or ``'triton'``, what reassembles; see
            :func:`mmdysample.ops.reassemble`. Defaults to ``'auto'``.

    Raises:
        ValueError: If an option is out of range or ``up_group`` does not divide ``in_channels``.
    """

    shown = ('up_kernel', 'up_group')

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        up_kernel: int = 5,
        up_group: int = 1,
        encoder_kernel: int = 3,
        encoder_dilation: int = 1,
        compressed_channels: int = 64,
        backend: str = 'auto',
    ) -> None:
        super().__init__(in_channels, scale_factor)
        check_backend(backend)
        self.backend = backend
        check_positive('up_kernel', up_kernel, odd=True)
        check_positive('encoder_kernel', encoder_kernel, odd=True)
        check_positive('encoder_dilation', encoder_dilation)
        check_positive('compressed_channels', compressed_channels)
        check_positive('up_group', up_group)
        check_multiple('in_channels', in_channels, of=up_group)
        self.up_kernel = up_kernel
        self.up_group = up_group
        self.channel_compressor = PixelConv2d(in_channels, compressed_channels)
        self.content_encoder = nn.Conv2d(
            compressed_channels,
            up_group * up_kernel**2 * scale_factor**2,
            encoder_kernel,
            padding=(encoder_kernel - 1) * encoder_dilation // 2,
            dilation=encoder_dilation,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform compressor, encoder from N(0, 0.001²): kernels start almost uniform."""
        nn.init.xavier_uniform_(self.channel_compressor.weight)
        nn.init.normal_(self.content_encoder.weight, std=0.001)
        nn.init.zeros_(self.channel_compressor.bias)
        nn.init.zeros_(self.content_encoder.bias)

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Predict a kernel for every output pixel and reassemble ``x`` with it."""
        logits = self.content_encoder(self.channel_compressor(x))
        logits = F.pixel_shuffle(logits, self.scale_factor)
        return reassemble(
            x,
            softmax_kernels(logits, self.up_group),
            kernel_size=self.up_kernel,
            groups=self.up_group,
            scale_factor=self.scale_factor,
            size=size,
            backend=self.backend,
        )

    def macs(self, height: int, width: int) -> int:
        """Two convolutions at low resolution, ``k * k`` taps per output value."""
        convolutions = self.channel_compressor.weight.numel() + self.content_encoder.weight.numel()
        taps = self.up_kernel**2 * self.in_channels * self.scale_factor**2
        return (convolutions + taps) * height * width
