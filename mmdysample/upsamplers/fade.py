"""FADE: fusing the assets of decoder and encoder for upsampling (arXiv 2207.10392)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.backend import check_backend
from mmdysample.ops.checks import check_positive
from mmdysample.ops.layers import PixelConv2d
from mmdysample.ops.reassembly import reassemble, softmax_kernels
from mmdysample.upsamplers.base import Upsampler, draw_weights, register_upsampler

COMPRESSED_CHANNELS = 64


@register_upsampler('fade', lite=False)
@register_upsampler('fade_lite', lite=True)
class FADE(Upsampler):
    """Reassemble ``x`` with kernels predicted from guide and ``x``; optionally gate in the guide.

    One convolution, applied to the compressed guide and to the compressed ``x``, gives two sets
    of logits; they are added after the coarse ones are repeated over 2x2 pixels (the semi-shift
    convolution). The gate, predicted from ``x``, blends the guide into the result. Both upsample
    by 2 only.

    The gate is on by default, as in the original method and its segmentation tables (+0.29 M for
    six upsamplers, +80 K for the lite form). The detection tables and code use ``gating=False``:
    in a feature pyramid the guide is added to the result anyway.

    Parameters carry the published names.

    Args:
        in_channels (int): Channels ``C`` of ``x``.
        scale_factor (int): 2. Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide. Defaults to ``in_channels``.
        up_kernel_size (int): Side ``k`` of the reassembled window, odd. Defaults to 5.
        gating (bool): Blend in the guide, which needs ``guide_channels == in_channels``.
            Defaults to True.
        lite (bool): Compress to ``k * k`` channels and convolve these depth-wise: the type
            ``fade_lite``. Defaults to False.
        backend (str): ``'auto'``, ``'torch'``, ``'native'`` or ``'triton'``, what reassembles; see
            :func:`mmdysample.ops.reassemble`. Defaults to ``'auto'``.

    Raises:
        ValueError: If an option is out of range, or the gate meets different channel numbers.
    """

    guided = True
    only_doubles = True
    shown = ('up_kernel_size', 'gating', 'lite')

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        guide_channels: int | None = None,
        up_kernel_size: int = 5,
        gating: bool = True,
        lite: bool = False,
        backend: str = 'auto',
    ) -> None:
        super().__init__(in_channels, scale_factor, guide_channels=guide_channels)
        check_backend(backend)
        self.backend = backend
        check_positive('up_kernel_size', up_kernel_size, odd=True)
        if gating:
            self._need_equal_channels('gating=True')
        self.up_kernel_size = up_kernel_size
        self.gating = gating
        self.lite = lite
        self.ker_generator = _KernelGenerator(
            self.guide_channels, in_channels, up_kernel_size**2, lite
        )
        if gating:
            self.gate_generator = _GateGenerator(in_channels)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform weights and zero biases."""
        draw_weights(self, nn.init.xavier_uniform_)

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Reassemble ``x``, blend in the guide where gated, and cut to ``size``."""
        kernels = self.ker_generator(guide, x)
        options = dict(kernel_size=self.up_kernel_size, size=size, backend=self.backend)
        if not self.gating:
            return reassemble(x, kernels, **options)
        # guide * gate + out * (1 - gate), the second factor on the kernels, which are fewer than
        # the channels.
        gate = self.gate_generator(x)
        out = reassemble(x, kernels * (1 - gate), **options)
        height, width = size
        guide, gate = (t[..., :height, :width].to(x.dtype) for t in (guide, gate))
        return out.addcmul_(guide, gate)

    def macs(self, height: int, width: int) -> int:
        """Compressors, the shared encoder at both resolutions, taps, and gate if there is one."""
        generator = self.ker_generator
        fine = generator.compressor_en.weight.numel()
        coarse = generator.compressor_de.weight.numel()
        shared = generator.content_encoder.weight.numel()
        taps = 4 * self.up_kernel_size**2 * self.in_channels
        gate = (1 + 2 * 4) * self.in_channels if self.gating else 0
        return (4 * (fine + shared) + coarse + shared + taps + gate) * height * width


class _KernelGenerator(nn.Module):
    """Guide and ``x`` to kernels ``(N, k * k, 2H, 2W)``."""

    def __init__(self, guide_channels: int, channels: int, taps: int, lite: bool) -> None:
        super().__init__()
        compressed = taps if lite else COMPRESSED_CHANNELS
        self.compressor_en = PixelConv2d(guide_channels, compressed)
        self.compressor_de = PixelConv2d(channels, compressed, bias=False)
        self.content_encoder = nn.Conv2d(compressed, taps, 3, padding=1, groups=taps if lite else 1)

    def forward(self, guide: Tensor, x: Tensor) -> Tensor:
        fine = self.content_encoder(self.compressor_en(guide))
        coarse = self.content_encoder(self.compressor_de(x))
        return softmax_kernels(fine + F.interpolate(coarse, scale_factor=2, mode='nearest'))


class _GateGenerator(nn.Module):
    """``x`` to a gate ``(N, 1, 2H, 2W)`` between 0 and 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = PixelConv2d(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x).sigmoid(), scale_factor=2, mode='nearest')
