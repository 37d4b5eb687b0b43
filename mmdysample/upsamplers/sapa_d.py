"""SAPA-D: similarity-aware point affiliation with dynamic selection (arXiv 2307.08198)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.checks import check_multiple, check_positive
from mmdysample.ops.dysample import full_precision
from mmdysample.ops.layers import at_least_float32, convolve, normalise_groups
from mmdysample.ops.reassembly.naive import repeat_pixels
from mmdysample.upsamplers.base import (
    Upsampler,
    check_flags,
    draw_weights,
    register_upsampler,
)
from mmdysample.upsamplers.sapa import group_norms


@register_upsampler('sapa_d')
class SAPADynamic(Upsampler):
    """Weigh learned points of ``x`` by their similarity to each guide pixel.

    As SAPA, but in place of a window each channel group has a few points. Their offsets, predicted
    from ``x``, count in input pixels from the centre of the input pixel that the output pixel lies
    in. Keys and values are read there by bilinear interpolation, with zeros outside the map; such
    a point has similarity 0 and takes part in the softmax. It is the original ``x`` that is read.

    Everything is computed in float32 or wider. While training, the points' values are kept for the
    backward pass, ``num_point`` times the output.

    Parameters carry the published names.

    Args:
        in_channels (int): Channels ``C`` of ``x``, a multiple of ``groups``; of 32 with ``norm``.
        scale_factor (int): The factor ``s``. Defaults to 2.
        guide_channels (int, optional): Channels ``Cg`` of the guide; a multiple of 32 with
            ``norm``. Defaults to ``in_channels``.
        num_point (int): Points ``P`` of each output pixel and group. Defaults to 9.
        groups (int): Channel groups ``G`` with points and weights of their own. Defaults to 4.
        embedding_dim (int): Channels of queries and keys in each group. Defaults to 32.
        qkv_bias (bool): Give projections and offsets biases. Defaults to True.
        high_offset (bool): Predict offsets for each output pixel, instead of one set for all
            output pixels of an input pixel. Defaults to True.
        norm (bool): Normalise guide and ``x`` in 32 groups before they are projected and the
            offsets predicted. Defaults to False.

    Raises:
        ValueError: If an option is out of range or channel numbers do not fit.
        TypeError: If a flag is not a bool.
    """

    guided = True
    shown = ('num_point', 'groups', 'high_offset')

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        guide_channels: int | None = None,
        num_point: int = 9,
        groups: int = 4,
        embedding_dim: int = 32,
        qkv_bias: bool = True,
        high_offset: bool = True,
        norm: bool = False,
    ) -> None:
        super().__init__(in_channels, scale_factor, guide_channels=guide_channels)
        options = dict(num_point=num_point, groups=groups, embedding_dim=embedding_dim)
        for name, value in options.items():
            check_positive(name, value)
        check_flags(qkv_bias=qkv_bias, high_offset=high_offset, norm=norm)
        check_multiple('in_channels', in_channels, of=groups)
        self.num_point = num_point
        self.groups = groups
        self.high_offset = high_offset
        self.norm_y = self.norm_x = None
        if norm:
            self.norm_y, self.norm_x = group_norms(self.guide_channels, in_channels)
        embedding = groups * embedding_dim
        self.q = nn.Conv2d(self.guide_channels, embedding, 1, bias=qkv_bias)
        self.k = nn.Conv2d(in_channels, embedding, 1, bias=qkv_bias)
        components = 2 * groups * num_point * (scale_factor**2 if high_offset else 1)
        self.offset = nn.Conv2d(in_channels, components, 1, bias=qkv_bias)
        self.init_weights()

    def init_weights(self) -> None:
        """All 1x1 convolutions from N(0, 0.02²), zero biases; points start at the parent."""
        draw_weights(self, partial(nn.init.normal_, std=0.02))

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Choose the points, compare them with the guide, and add them up."""
        with full_precision(x.device):
            values = normal = at_least_float32(x)
            guide = at_least_float32(guide)
            if self.norm_x is not None:
                normal = normalise_groups(self.norm_x, normal)
                guide = normalise_groups(self.norm_y, guide)
            queries, keys = convolve(self.q, guide), convolve(self.k, normal)
            grids = self._grids(normal)
            weights = self._attention(queries, keys, grids)
            out = 0
            for weight, grid in zip(weights.unbind(2), grids, strict=True):
                out = out + weight.unsqueeze(2) * self._read(values, grid)
        return out.flatten(1, 2)[..., : size[0], : size[1]].to(x.dtype)

    def _grids(self, normal: Tensor) -> list[Tensor]:
        """Where each point lies, ``(N * G, sH, sW, 2)``, as ``grid_sample`` counts: -1 to 1."""
        s, (height, width) = self.scale_factor, normal.shape[-2:]
        offsets = convolve(self.offset, normal)
        offsets = F.pixel_shuffle(offsets, s) if self.high_offset else repeat_pixels(offsets, s)
        offsets = offsets.unflatten(1, (self.groups, self.num_point, 2)).flatten(0, 1)
        options = dict(dtype=normal.dtype, device=normal.device)
        rows = torch.arange(s * height, **options).div(s, rounding_mode='floor')[:, None]
        columns = torch.arange(s * width, **options).div(s, rounding_mode='floor')
        grids = []
        for point in offsets.unbind(1):
            x = (2 * (columns + point[:, 0]) + 1) / width - 1  # the horizontal component is first
            y = (2 * (rows + point[:, 1]) + 1) / height - 1
            grids.append(torch.stack((x, y), dim=-1))
        return grids

    def _attention(self, queries: Tensor, keys: Tensor, grids: list[Tensor]) -> Tensor:
        """Weights of the points, ``(N, G, P, sH, sW)``."""
        queries = queries.unflatten(1, (self.groups, -1))
        logits = [(queries * self._read(keys, grid)).sum(2) for grid in grids]
        return torch.stack(logits, dim=2).softmax(2)

    def _read(self, feature: Tensor, grid: Tensor) -> Tensor:
        """Values at one point of each output pixel, ``(N, G, channels / G, sH, sW)``."""
        groups = feature.unflatten(1, (self.groups, -1)).flatten(0, 1)
        read = F.grid_sample(groups, grid, padding_mode='zeros', align_corners=False)
        return read.unflatten(0, (-1, self.groups))

    def macs(self, height: int, width: int) -> int:
        """Projections, and per point four corners and two products of key and value channels."""
        coarse = self.k.weight.numel() + self.offset.weight.numel()
        points = self.num_point * (4 + 1) * (self.k.out_channels + self.in_channels)
        fine = self.q.weight.numel() + points
        return (coarse + self.scale_factor**2 * fine) * height * width
