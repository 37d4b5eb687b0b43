"""LDA-AQU: upsampling by local deformable attention (arXiv 2411.19585)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdysample.ops.checks import check_positive
from mmdysample.ops.dysample import full_precision
from mmdysample.ops.layers import at_least_float32, convolve, normalise_channels
from mmdysample.upsamplers.base import Upsampler, check_flags, draw_weights, register_upsampler


@register_upsampler('lda_aqu')
class LDAAQU(Upsampler):
    """Let every output pixel attend to a few points of ``x`` that it chooses itself.

    Queries and keys are projections of the normalised feature. The queries, interpolated to the
    output size, predict where each of their ``k_u * k_u`` points lies: at most ``range_factor``
    output pixels away from the neighbours of the pixel on the output grid. Keys and values are read
    there by bilinear interpolation, with zeros outside the map, and the softmax of the inner
    products weighs the values (Sec. 3). The values are ``x`` itself. No guide is needed.

    Everything is computed in float32 or wider. While training, the points' values are kept for the
    backward pass, ``k_u * k_u`` times the output.

    Parameters carry the published names, and published weights load. The table of position biases
    is kept without its two axes of length 1, for PyTorch moves no tensor of five axes to
    channels_last.

    Args:
        in_channels (int): Channels ``C``, a multiple of ``nh`` and of ``n_groups``.
        scale_factor (int): The factor ``s``. Defaults to 2.
        reduction_factor (int): Queries and keys have ``E = C // reduction_factor`` channels, a
            multiple of ``nh`` and of ``n_groups``. Defaults to 4.
        nh (int): Attention heads. Defaults to 1.
        k_e (int): Side of the convolution that predicts the offsets, odd. Defaults to 3.
        k_u (int): Side of the grid of points, odd. Defaults to 3.
        n_groups (int): Channel groups with points of their own. Defaults to 2.
        range_factor (float): Longest offset, in output pixels. Defaults to 11.
        rpb (bool): Add a learned vector to the key of each point, the relative position bias.
            Defaults to True.

    Raises:
        ValueError: If an option is out of range or channels cannot be divided as needed.
        TypeError: If an option is of the wrong type.
    """

    shown = ('nh', 'k_u', 'n_groups', 'range_factor')

    def __init__(
        self,
        in_channels: int,
        scale_factor: int = 2,
        *,
        reduction_factor: int = 4,
        nh: int = 1,
        k_e: int = 3,
        k_u: int = 3,
        n_groups: int = 2,
        range_factor: float = 11,
        rpb: bool = True,
    ) -> None:
        super().__init__(in_channels, scale_factor)
        check_positive('reduction_factor', reduction_factor)
        check_positive('k_e', k_e, odd=True)
        check_positive('k_u', k_u, odd=True)
        embedding = in_channels // reduction_factor
        for name, parts in (('nh', nh), ('n_groups', n_groups)):
            check_positive(name, parts)
            if in_channels % parts or embedding % parts or not embedding:
                raise ValueError(
                    f'{name} must divide in_channels={in_channels} and the {embedding} channels '
                    f'that reduction_factor={reduction_factor} leaves, got {parts}'
                )
        if isinstance(range_factor, bool) or not isinstance(range_factor, int | float):
            raise TypeError(f'range_factor must be a number, got {range_factor!r}')
        if not (math.isfinite(range_factor) and range_factor > 0):
            raise ValueError(f'range_factor must be positive and finite, got {range_factor!r}')
        check_flags(rpb=rpb)
        self.nh = nh
        self.k_u = k_u
        self.n_groups = n_groups
        self.range_factor = float(range_factor)
        self.embedding = embedding
        in_group = embedding // n_groups

        self.layer_norm = _ChannelNorm(in_channels)
        self.proj_q = nn.Conv2d(in_channels, embedding, 1, bias=False)
        self.proj_k = nn.Conv2d(in_channels, embedding, 1, bias=False)
        self.conv_offset = nn.Sequential(
            nn.Conv2d(in_group, in_group, 3, padding=1, groups=in_group, bias=False),
            _ChannelNorm(in_group),
            nn.GELU(),
            nn.Conv2d(in_group, 2 * k_u**2, k_e, padding=k_e // 2),
        )
        table = nn.Parameter(torch.empty(nh, k_u**2, embedding // nh)) if rpb else None
        self.register_parameter('relative_position_bias_table', table)
        self.register_load_state_dict_pre_hook(_drop_single_axes)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier-uniform projections; no offsets, so the points start as neighbours."""
        draw_weights(self, nn.init.xavier_uniform_)
        nn.init.zeros_(self.conv_offset[-1].weight)
        if self.relative_position_bias_table is not None:
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def upsample(self, x: Tensor, guide: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Choose the points of each output pixel, compare it with them, and add them up."""
        full = (x.shape[-2] * self.scale_factor, x.shape[-1] * self.scale_factor)
        with full_precision(x.device):
            values = at_least_float32(x)
            normal = self.layer_norm(values)
            keys = convolve(self.proj_k, normal)
            queries = convolve(self.proj_q, normal)
            queries = F.interpolate(queries, full, mode='bilinear', align_corners=True)
            grids = self._grids(queries)
            weights = self._attention(queries, keys, grids)
            out = 0
            for weight, grid in zip(weights.unbind(2), grids, strict=True):
                read = self._read(values, grid).unflatten(1, (self.nh, -1))
                out = out + weight.unsqueeze(2) * read
        return out.flatten(1, 2)[..., : size[0], : size[1]].to(x.dtype)

    def _grids(self, queries: Tensor) -> list[Tensor]:
        """Where each point lies, ``(N * G, sH, sW, 2)``, as ``grid_sample`` counts: -1 to 1."""
        height, width = queries.shape[-2:]
        groups = queries.unflatten(1, (self.n_groups, -1)).flatten(0, 1)
        first, norm, activation, last = self.conv_offset
        offsets = convolve(last, activation(norm(convolve(first, groups))))
        offsets = self.range_factor * offsets.tanh()
        options = dict(dtype=queries.dtype, device=queries.device)
        rows = torch.arange(height, **options)[:, None]
        columns = torch.arange(width, **options)
        grids = []
        for tap in range(self.k_u**2):
            row, column = (index - self.k_u // 2 for index in divmod(tap, self.k_u))
            # The vertical component comes first. A pixel of the outer rows or columns without an
            # offset must come out at exactly -1 or 1: right at the edge gradients depend on it.
            y = 2 * (rows + (offsets[:, 2 * tap] + row)) / (height - 1) - 1
            x = 2 * (columns + (offsets[:, 2 * tap + 1] + column)) / (width - 1) - 1
            grids.append(torch.stack((x, y), dim=-1))
        return grids

    def _attention(self, queries: Tensor, keys: Tensor, grids: list[Tensor]) -> Tensor:
        """Weights of the points, ``(N, heads, k_u * k_u, sH, sW)``."""
        queries = queries.unflatten(1, (self.nh, -1)) * (self.embedding // self.nh) ** -0.5
        logits = []
        for tap, grid in enumerate(grids):
            read = self._read(keys, grid).unflatten(1, (self.nh, -1))
            if self.relative_position_bias_table is not None:
                bias = self.relative_position_bias_table[:, tap].to(read.dtype)
                read = read + bias[..., None, None]
            logits.append((queries * read).sum(2))
        return torch.stack(logits, dim=2).softmax(2)

    def _read(self, feature: Tensor, grid: Tensor) -> Tensor:
        """Values of ``feature`` at one point of each output pixel, ``(N, channels, sH, sW)``."""
        groups = feature.unflatten(1, (self.n_groups, -1)).flatten(0, 1)
        read = F.grid_sample(groups, grid, padding_mode='zeros', align_corners=True)
        return read.unflatten(0, (-1, self.n_groups)).flatten(1, 2)

    def macs(self, height: int, width: int) -> int:
        """Projections, resized queries, offsets, and per point four corners and two products."""
        first, last = self.conv_offset[0], self.conv_offset[-1]
        projections = 2 * self.proj_q.weight.numel()
        offsets = self.n_groups * (first.weight.numel() + last.weight.numel())
        points = self.k_u**2 * (4 + 1) * (self.embedding + self.in_channels)
        outputs = self.scale_factor**2 * (4 * self.embedding + offsets + points)
        return (projections + outputs) * height * width


def _drop_single_axes(
    module: LDAAQU, state_dict: dict[str, Any], prefix: str, *_: Any, **__: Any
) -> None:
    """Bring a published table ``(1, heads, 1, points, channels)`` to this module's shape."""
    name = f'{prefix}relative_position_bias_table'
    table = state_dict.get(name)
    if table is not None and table.dim() == 5 and table.shape[0] == table.shape[2] == 1:
        state_dict[name] = table[0, :, 0]


class _ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, under the published name ``norm``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return normalise_channels(self.norm, x)
