"""SAPA: similarity-aware point affiliation (arXiv 2209.12866)."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from mmdysample.ops.backend import check_backend
from mmdysample.ops.checks import check_multiple, check_positive
from mmdysample.ops.layers import PixelConv2d
from mmdysample.ops.reassembly import reassemble, softmax_kernels, window_similarity
from mmdysample.upsamplers.base import Upsampler, draw_weights, register_upsampler

NORM_GROUPS = 32


@register_upsampler('sapa_b', embedding_dim=32, norm=True)
@register_upsampler('sapa_i', embedding_dim=None, norm=False)
class SAPA(Upsampler):
    """Reassemble ``x`` with the similarities of each guide pixel to its window of ``x``.

    Guide and ``x`` are normalised and projected to a common space (``sapa_b``) or
    compared as they are (``sapa_i``, no parameters). A softmax over the window's inner products
    gives the kernel. Taps outside the map have similarity 0 and take part in it, so at the
    border some weight falls on zeros. It is the original ``x`` that is reassembled.

    Parameters carry the published names.

    Args:
        in_channels (int): Channels ``C`` of ``x``; a multiple of 32 with ``norm``.
        scale_factor (int): The factor ``s``. Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide; a multiple of 32 with
            ``norm``. Defaults to ``in_channels``.
        up_kernel_size (int): Side ``k`` of the window, odd. Defaults to 5.
        embedding_dim (int, optional): Channels that guide and ``x`` are projected to; None
            compares them unprojected, which needs equal channel numbers. Defaults to 32.
        qkv_bias (bool): Give the projections biases. Defaults to True.
        norm (bool): Normalise guide and ``x`` first, in 32 groups. Defaults to True.
        backend (str): ``'auto'``, ``'torch'``, ``'native'`` or ``'triton'``, what reassembles; see
            :func:`mmdysample.ops.reassemble`. Defaults to ``'auto'``.

    Raises:
        ValueError: If an option is out of range or channel numbers do not fit.
    """

    guided = True
    shown = ('up_kernel_size', 'embedding_dim')

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        guide_channels: int | None = None,
        up_kernel_size: int = 5,
        embedding_dim: int | None = 32,
        qkv_bias: bool = True,
        norm: bool = True,
        backend: str = 'auto',
    ) -> None:
        super().__init__(in_channels, scale_factor, guide_channels=guide_channels)
        check_backend(backend)
        self.backend = backend
        check_positive('up_kernel_size', up_kernel_size, odd=True)
        self.up_kernel_size = up_kernel_size
        self.embedding_dim = embedding_dim
        self.norm_y = self.norm_x = self.q = self.k = nn.Identity()
        if norm:
            self.norm_y, self.norm_x = group_norms(self.guide_channels, in_channels)
        if embedding_dim is not None:
            check_positive('embedding_dim', embedding_dim)
            self.q = PixelConv2d(self.guide_channels, embedding_dim, bias=qkv_bias)
            self.k = PixelConv2d(in_channels, embedding_dim, bias=qkv_bias)
        else:
            self._need_equal_channels('embedding_dim=None')
        self.init_weights()

    def init_weights(self) -> None:
        """Projections from N(0, 0.02²), zero biases; normalisation starts as identity."""
        draw_weights(self, partial(nn.init.normal_, std=0.02))

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Compare the guide with ``x`` and reassemble ``x`` by similarity."""
        window = dict(
            kernel_size=self.up_kernel_size,
            scale_factor=self.scale_factor,
            backend=self.backend,
        )
        query, key = self.q(self.norm_y(guide)), self.k(self.norm_x(x))
        kernels = softmax_kernels(window_similarity(query, key, **window))
        return reassemble(x, kernels, size=size, **window)

    def macs(self, height: int, width: int) -> int:
        """Projections, inner products and taps."""
        outputs = self.scale_factor**2
        dim = self.in_channels if self.embedding_dim is None else self.embedding_dim
        products = outputs * self.up_kernel_size**2 * (dim + self.in_channels)
        projections = 0
        if self.embedding_dim is not None:
            projections = dim * (outputs * self.guide_channels + self.in_channels)
        return (products + projections) * height * width


def group_norms(guide_channels: int, in_channels: int) -> tuple[nn.GroupNorm, nn.GroupNorm]:
    """Make the published normalisations of guide and ``x``, each in 32 groups."""
    check_multiple('guide_channels', guide_channels, of=NORM_GROUPS)
    check_multiple('in_channels', in_channels, of=NORM_GROUPS)
    return nn.GroupNorm(NORM_GROUPS, guide_channels), nn.GroupNorm(NORM_GROUPS, in_channels)
