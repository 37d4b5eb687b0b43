"""Point sampling to a coarser map, the way back from :func:`mmdysample.ops.dysample`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.ops.checks import check_feature, check_scale_factor
from mmdysample.ops.dysample import full_precision
from mmdysample.ops.dysample.eager import grid_units, read_grid

POINTS = ('average', 'strided')


def dysample_down(
    x: Tensor, offset: Tensor, *, scale_factor: int = 2, init: str = 'average'
) -> Tensor:
    r"""Sample a coarser map from ``x`` where the offsets say.

    ``init='average'``: each pixel :math:`p` of ``x`` is a point, which reads each channel group
    :math:`g` by bilinear interpolation at :math:`p + s\,o(p, g)`; the points of a window of
    ``s x s`` pixels, fewer at the lower and right border, are averaged. Without offsets this is
    average pooling. ``init='strided'``: one point for each output pixel, the upper left of its
    window, where a convolution of stride ``s`` has its centre. Positions beyond the outer pixel
    centres are moved onto them.

    Args:
        x (Tensor): Feature ``(N, C, H, W)``, floating point, any strides; group ``g`` owns the
            channels ``g * C/G`` to ``(g + 1) * C/G - 1``.
        offset (Tensor): Offsets ``o`` of the points in pixels of the *output*, x before y, as
            :meth:`mmdysample.DySample.sampling_positions` gives them in pixels of its input:
            ``(N, G, 2, H, W)``, or ``(N, G, 2, ceil(H/s), ceil(W/s))`` for ``'strided'``.
        scale_factor (int): The factor ``s``. Defaults to 2.
        init (str): The points, ``'average'`` or ``'strided'``. Defaults to ``'average'``.

    Returns:
        Tensor: ``(N, C, ceil(H/s), ceil(W/s))``, the size that a convolution of stride ``s`` and
        kernel ``2s - 1`` leaves, in the dtype of ``x``, channels_last where ``x`` is. Positions
        and interpolation are computed in float32, or in float64 where an input is float64.

    Raises:
        TypeError: If a tensor is not floating point.
        ValueError: If a shape, ``scale_factor`` or ``init`` does not fit.
    """
    check_feature('x', x)
    s = check_scale_factor(scale_factor)
    check_points(init)
    _check_offset(x, offset, s, init)
    if x.shape[0] == 0:  # grid_sample refuses an empty batch
        return pool(x, s) + 0 * offset.sum().to(x.dtype)
    dtype = torch.promote_types(torch.promote_types(x.dtype, offset.dtype), torch.float32)
    step = 1 if init == 'average' else s
    row, column = (
        torch.arange(0, length, step, dtype=dtype, device=x.device) for length in x.shape[-2:]
    )
    unit_x, unit_y = grid_units(x)
    offset = offset.to(dtype)
    grid = torch.stack(
        (
            torch.add(column * unit_x - 1, offset[:, :, 0], alpha=s * unit_x),
            torch.add((row * unit_y - 1)[:, None], offset[:, :, 1], alpha=s * unit_y),
        ),
        dim=2,
    )
    with full_precision(x.device):
        points = read_grid(x, grid, offset.shape[1], grid.shape[-2:])
    return pool(points, s) if init == 'average' else points


def pool(x: Tensor, scale_factor: int) -> Tensor:
    """Average windows of ``s x s``, at the lower and right border of what there is of them."""
    return F.avg_pool2d(x, scale_factor, ceil_mode=True)


def check_points(init: str) -> None:
    """Raise ValueError unless there are such points."""
    if init not in POINTS:
        raise ValueError(f'init must be one of {POINTS}, got {init!r}')


def _check_offset(x: Tensor, offset: Tensor, scale_factor: int, init: str) -> None:
    if not isinstance(offset, Tensor) or not offset.is_floating_point():
        kind = offset.dtype if isinstance(offset, Tensor) else type(offset).__name__
        raise TypeError(f'offset must be a floating-point tensor, got {kind}')
    n, channels, *size = x.shape
    if init == 'strided':
        size = [-(-length // scale_factor) for length in size]
    if offset.dim() != 5 or (offset.shape[0], *offset.shape[2:]) != (n, 2, *size):
        raise ValueError(
            f'offset must be of shape ({n}, G, 2, {size[0]}, {size[1]}) for init={init!r}, '
            f'scale_factor={scale_factor}, got {tuple(offset.shape)}'
        )
    groups = offset.shape[1]
    if groups == 0 or channels % groups:
        raise ValueError(
            f'the groups of offset must divide the {channels} channels of x, got {groups}'
        )
