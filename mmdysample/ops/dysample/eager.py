"""DySample's point sampling on PyTorch's operators: fast, on any device, differentiable twice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.ops.backend import only_plain_operators
from mmdysample.ops.dysample.spec import SamplingSpec
from mmdysample.ops.layout import is_channels_last


def initial_positions(
    length: int, scale_factor: int, init: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Where the output pixels of one axis sample before any offset, in input pixels.

    One axis, made on the device that needs it: cheaper than keeping a cache right under
    inference mode, tracing and graph capture, and under a thousandth of what sampling costs.

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


def sampling_positions(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
    size: tuple[int, int],
    units: tuple[float, float] = (1.0, 1.0),
    origin: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """``initial position + scope * offset`` of every output pixel, not yet moved into the map.

    Args as in :func:`mmdysample.ops.dysample`, and the unit to count in, for x and for y, from an
    ``origin``: pixels from the first pixel's centre unless told otherwise.

    Returns:
        tuple[Tensor, Tensor]: x and y, each ``(N, G, h', w')`` in float32 or wider.
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, offset.dtype), torch.float32)
    offset = offset.to(dtype)
    if scope is not None:
        offset = offset * scope.to(dtype).sigmoid()
    if spec.style == 'lp':
        offset = F.pixel_shuffle(offset, spec.scale_factor)
    offset = offset[..., : size[0], : size[1]].unflatten(1, (2, spec.groups))
    px, py = (
        initial_positions(length, spec.scale_factor, spec.init, dtype, x.device) * unit + origin
        for length, unit in zip(size[::-1], units, strict=True)
    )
    # One pass over the offsets for the rest: on the CPU these passes are what sampling waits for.
    return (
        torch.add(px, offset[:, 0], alpha=spec.scope_factor * units[0]),
        torch.add(py[:, None], offset[:, 1], alpha=spec.scope_factor * units[1]),
    )


def sample_eager(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
    size: tuple[int, int],
) -> Tensor:
    """Sample through ``F.grid_sample``; arguments as in :func:`mmdysample.ops.dysample`.

    In float32 a position on a map ``L`` pixels long is right to ``L * 2**-23`` pixels, the price
    of ``grid_sample``'s unit: 0.0005 at 4096.
    """
    if not only_plain_operators() and x.shape[0] == 0:  # grid_sample refuses an empty batch
        nothing = 0 * offset.sum() if scope is None else 0 * (offset.sum() + scope.sum())
        out = F.interpolate(x, scale_factor=spec.scale_factor)[..., : size[0], : size[1]]
        return out + nothing.to(x.dtype)
    # x and y as planes: as they come, and grid_sample reads planes as fast as pairs.
    positions = sampling_positions(x, offset, scope, spec, size, grid_units(x), -1.0)
    return read_grid(x, torch.stack(positions, dim=2), spec.groups, size)


def grid_units(x: Tensor) -> tuple[float | Tensor, float | Tensor]:
    """Length of a pixel of ``x``, for x and for y, as ``F.grid_sample`` counts.

    That is from -1 to 1 between the outer pixel centres.
    """
    return 2 / _span(x.shape[3]), 2 / _span(x.shape[2])


def read_grid(x: Tensor, grid: Tensor, groups: int, size: tuple[int, int]) -> Tensor:
    """Read each channel group of ``x`` at its own positions, moved into the map before.

    Args:
        x (Tensor): Feature ``(N, C, H, W)``, not of an empty batch.
        grid (Tensor): Positions ``(N, G, 2, h', w')`` in :func:`grid_units` from -1, x before y,
            in float32 or wider. It is changed.
        groups (int): ``G``.
        size (tuple[int, int]): ``(h', w')``.

    Returns:
        Tensor: ``(N, C, h', w')`` in the dtype of ``x``, channels_last where ``x`` is.
    """
    n, channels, height, width = x.shape
    # Clamping here instead of by grid_sample's padding_mode keeps a NaN position NaN; hardtanh
    # passes no gradient at its limits.
    sampled = F.grid_sample(
        x.to(grid.dtype).reshape(n * groups, channels // groups, height, width),
        F.hardtanh(grid, inplace=True).flatten(0, 1).permute(0, 2, 3, 1),
        mode='bilinear',
        padding_mode='zeros',
        align_corners=True,
    )
    sampled = sampled.reshape(n, channels, *size).to(x.dtype)
    if only_plain_operators() or not is_channels_last(x):
        return sampled
    return sampled.contiguous(memory_format=torch.channels_last)


def _span(length: int | Tensor) -> int | Tensor:
    """Steps between the outer pixel centres of an axis; a single pixel counts as one."""
    if isinstance(length, Tensor):  # what torch.jit.trace makes of a size
        return (length - 1).clamp(min=1)
    return max(length - 1, 1)
