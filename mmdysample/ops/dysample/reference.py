"""DySample's point sampling in plain PyTorch, to be read beside the paper (arXiv 2308.15085)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def initial_positions(
    length: int, scale_factor: int, init: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Where the output pixels of one axis sample before any offset, in input pixels.

    Args:
        length (int): Output pixels of the axis.
        scale_factor (int): Output pixels per input pixel.
        init (str): ``'bilinear'``, the output pixel's own place, or ``'nearest'``, the centre of
            the input pixel that it lies in (Sec. 3.2, "initial sampling position").
        dtype (torch.dtype): Of the result.
        device (torch.device): Of the result; it is made there.

    Returns:
        Tensor: ``(length,)``; 0 is the centre of the first input pixel.
    """
    pixel = torch.arange(length, dtype=dtype, device=device)
    if init == 'nearest':
        return pixel.div(scale_factor, rounding_mode='floor')
    return (pixel + 0.5) / scale_factor - 0.5


def dysample_reference(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    scale_factor: int,
    groups: int,
    style: str,
    scope_factor: float,
    init: str,
    size: tuple[int, int],
) -> Tensor:
    """Sample ``x`` at ``initial position + scope * offset``; arguments as in :func:`dysample`."""
    n, channels, height, width = x.shape
    dtype = torch.promote_types(torch.promote_types(x.dtype, offset.dtype), torch.float32)

    offset = offset.to(dtype)
    offset = offset * (scope_factor if scope is None else scope.to(dtype).sigmoid() * scope_factor)
    if style == 'lp':
        offset = F.pixel_shuffle(offset, scale_factor)
    offset = offset[..., : size[0], : size[1]].unflatten(1, (2, groups))

    px = offset[:, 0] + initial_positions(size[1], scale_factor, init, dtype, x.device)
    py = offset[:, 1] + initial_positions(size[0], scale_factor, init, dtype, x.device)[:, None]
    # grid_sample counts from -1 to 1 between the outer edges of the border pixels.
    grid = torch.stack(((2 * px + 1) / width - 1, (2 * py + 1) / height - 1), dim=-1)
    sampled = F.grid_sample(
        x.to(dtype).reshape(n * groups, channels // groups, height, width),
        grid.flatten(0, 1),
        mode='bilinear',
        padding_mode='border',
        align_corners=False,
    )
    return sampled.view(n, channels, *size).to(x.dtype)
