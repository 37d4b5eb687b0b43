"""DySample's point sampling as the paper writes it (arXiv 2308.15085, Sec. 3), not to be fast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.ops.dysample.spec import SamplingSpec


def sample_naive(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
    size: tuple[int, int],
) -> Tensor:
    r"""Sample ``x`` at :math:`p_0 + \lambda\,\mathrm{sigmoid}(s)\,o` (Eq. 3 to 5).

    Args:
        x (Tensor): Feature ``(N, C, H, W)``, floating point.
        offset (Tensor): ``o``, ``(N, 2 * G * s * s, H, W)``, or ``(N, 2 * G, sH, sW)`` for style
            ``'pl'``; x before y, in input pixels.
        scope (Tensor, optional): ``s`` before the sigmoid, shaped as ``offset``; None for the
            static scope, without the sigmoid.
        spec (SamplingSpec): The options.
        size (tuple[int, int]): Output size ``(h', w')``.

    Returns:
        Tensor: ``(N, C, h', w')``. A position beyond the outer pixel centres is moved onto them.
    """
    s, groups, (n, channels, height, width) = spec.scale_factor, spec.groups, x.shape
    moved = spec.scope_factor * (offset if scope is None else scope.sigmoid() * offset)
    if spec.style == 'lp':
        moved = F.pixel_shuffle(moved, s)
    moved = moved.view(n, 2, groups, 1, s * height, s * width)[..., : size[0], : size[1]]
    row, column = (torch.arange(length, device=x.device, dtype=offset.dtype) for length in size)
    if spec.init == 'nearest':
        row, column = row // s, column // s
    else:
        row, column = (row + 0.5) / s - 0.5, (column + 0.5) / s - 0.5
    px = F.hardtanh(column + moved[:, 0], 0, width - 1)
    py = F.hardtanh(row[:, None] + moved[:, 1], 0, height - 1)
    left, top = (p.detach().floor().nan_to_num().long() for p in (px, py))
    u, v = px - left, py - top
    grouped = x.view(n, groups, channels // groups, height * width)

    def read(py: Tensor, px: Tensor) -> Tensor:
        pixel = py.clamp(max=height - 1) * width + px.clamp(max=width - 1)
        shape = (n, groups, channels // groups, size[0] * size[1])
        return grouped.gather(3, pixel.flatten(3).expand(shape)).unflatten(3, size)

    upper = (1 - u) * read(top, left) + u * read(top, left + 1)
    lower = (1 - u) * read(top + 1, left) + u * read(top + 1, left + 1)
    return ((1 - v) * upper + v * lower).flatten(1, 2)
