"""A2U: affinity-aware upsampling (arXiv 2011.14288)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.backend import check_backend, only_plain_operators
from mmdysample.ops.checks import check_multiple
from mmdysample.ops.filtering import SIDE, filter_each
from mmdysample.ops.layers import average_cells
from mmdysample.ops.reassembly import reassemble, softmax_kernels
from mmdysample.upsamplers.base import Upsampler, register_upsampler

logger = logging.getLogger(__name__)

UP_KERNEL = 3
NORM_GROUPS = 32
KERNEL_CHANNELS = UP_KERNEL**2 * 4


@register_upsampler('a2u')
class A2U(Upsampler):
    """Reassemble 3x3 windows with kernels from second-order features of the guide.

    Every sample makes two 6x6 filters from its guide, and a number for each of the nine taps at
    each of the four sub-positions. The affinity map, the product of the two filtered guides summed
    over channels, is scaled by these numbers; a sigmoid and a softmax make kernels of it. Filters
    have stride 2, so it upsamples by 2 only.

    Parameters carry the published names. ``kernel_gen.bconv_DP`` belongs to the method's
    downsampling half and never reaches the output, but published weights hold it and published
    tables count it (20,042 parameters at 256 channels, 10,790 without). It is therefore kept, as
    parameters that are counted, saved and loaded but do not require gradients: so distributed
    training does not wait for gradients that never come.

    Args:
        in_channels (int): Channels ``C`` of ``x``.
        scale_factor (int): 2. Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide, a multiple of 32.
            Defaults to ``in_channels``.
        keep_downsampling (bool): Keep the unused ``bconv_DP``. Without it, loading weights that
            hold it drops it with a log message. Defaults to True.
        backend (str): ``'auto'``, ``'torch'``, ``'native'`` or ``'triton'``, what reassembles; see
            :func:`mmdysample.ops.reassemble`. Defaults to ``'auto'``.

    Raises:
        ValueError: If ``scale_factor`` is not 2 or the guide's channels are no multiple of 32.
    """

    guided = True
    only_doubles = True

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        guide_channels: int | None = None,
        keep_downsampling: bool = True,
        backend: str = 'auto',
    ) -> None:
        super().__init__(in_channels, scale_factor, guide_channels=guide_channels)
        check_backend(backend)
        self.backend = backend
        self.kernel_gen = _KernelGenerator(self.guide_channels, keep_downsampling)

    def init_weights(self) -> None:
        """PyTorch's default initialisation, as published."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.GroupNorm):
                module.reset_parameters()

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Predict a kernel for every output pixel and reassemble ``x`` with it."""
        options = dict(kernel_size=UP_KERNEL, size=size, backend=self.backend)
        return reassemble(x, self.kernel_gen(guide, self.backend), **options)

    def macs(self, height: int, width: int) -> int:
        """Filters, affinity, kernels and taps per pixel; three projections of pooled guides."""
        channels = self.guide_channels
        filters = 2 * SIDE**2 * channels
        taps = 4 * UP_KERNEL**2 * self.in_channels
        pooled = (KERNEL_CHANNELS + 2 * SIDE**2) * channels
        return (filters + channels + KERNEL_CHANNELS + taps) * height * width + pooled


class _KernelGenerator(nn.Module):
    """Guide ``(N, Cg, 2H, 2W)`` to kernels ``(N, 9, 2H, 2W)``."""

    def __init__(self, channels: int, keep_downsampling: bool) -> None:
        super().__init__()
        check_multiple('guide_channels', channels, of=NORM_GROUPS)
        self.bnu = nn.Sequential(nn.GroupNorm(NORM_GROUPS, channels), nn.LeakyReLU())
        self.bnv = nn.Sequential(nn.GroupNorm(NORM_GROUPS, channels), nn.LeakyReLU())
        self.bconv_UP = _pooled_projection(channels, 1, KERNEL_CHANNELS)
        if keep_downsampling:
            self.bconv_DP = _pooled_projection(channels, 1, KERNEL_CHANNELS).requires_grad_(False)
        else:
            self.register_load_state_dict_pre_hook(_drop_downsampling)
        self.bconv_U = _pooled_projection(channels, SIDE, 1)
        self.bconv_V = _pooled_projection(channels, SIDE, 1)

    def forward(self, guide: Tensor, backend: str = 'auto') -> Tensor:
        guide = guide.contiguous()  # depth-wise filters are several times slower in channels_last
        cells = self.bconv_U[0](guide)  # bconv_V would average the same
        filters = torch.cat((self.bconv_U[1](cells), self.bconv_V[1](cells)), 1)
        u, v = _filter_each(guide, filters, backend)
        affinity = (self.bnu(u) * self.bnv(v)).sum(1, keepdim=True) / math.sqrt(guide.shape[1])
        scores = F.pixel_shuffle(self.bconv_UP(guide) * affinity, 2)
        return softmax_kernels(scores.sigmoid())


def _drop_downsampling(
    module: _KernelGenerator, state_dict: dict[str, Any], prefix: str, *_: Any
) -> None:
    """Before weights are loaded: drop those of the downsampling half."""
    unused = [name for name in state_dict if name.startswith(f'{prefix}bconv_DP.')]
    for name in unused:
        del state_dict[name]
    if unused:
        logger.info('dropped %s: they never reach the output', ', '.join(unused))


class _AveragePool(nn.AdaptiveAvgPool2d):
    """The same average over ``cells x cells``; in graphs whose sizes are free, two products."""

    def forward(self, input: Tensor) -> Tensor:
        if not only_plain_operators():
            return super().forward(input)
        return average_cells(input, (self.output_size, self.output_size))


def _pooled_projection(channels: int, cells: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(_AveragePool(cells), nn.Conv2d(channels, out_channels, 1))


def _filter_each(guide: Tensor, filters: Tensor, backend: str) -> Iterable[Tensor]:
    """Convolve all channels of sample ``n`` with its filters, ``(N, F, 6, 6)``, stride 2."""
    if only_plain_operators():
        return [_filter_patches(guide, one) for one in filters.split(1, dim=1)]
    return filter_each(guide, filters, backend).unbind(0)


def _filter_patches(guide: Tensor, filters: Tensor) -> Tensor:
    """The same for exports, where a convolution can have no group for each of ``N`` samples.

    A convolution with constant weights copies the patches, for they do not depend on the sample.
    """
    channels, taps = guide.shape[1], SIDE**2
    copies = torch.eye(taps, dtype=guide.dtype, device=guide.device)
    copies = copies.view(taps, 1, SIDE, SIDE).repeat(int(channels), 1, 1, 1)
    patches = F.conv2d(guide, copies, stride=2, padding=2, groups=int(channels))
    return (patches.unflatten(1, (-1, taps)) * filters.view(-1, 1, taps, 1, 1)).sum(2)
