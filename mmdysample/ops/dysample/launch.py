"""DySample's sampling by Triton: tiles, launches, and the deterministic mode."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmdysample.ops.backend import on_device
from mmdysample.ops.dysample.eager import sampling_positions
from mmdysample.ops.dysample.gather import neighbours
from mmdysample.ops.dysample.kernel import dysample_backward_kernel, dysample_forward_kernel
from mmdysample.ops.dysample.spec import SamplingSpec
from mmdysample.ops.layout import is_channels_last, memory_format

INT32_ELEMENTS = 2**31
"""A map of so many elements is indexed in int64."""


class Tile(NamedTuple):
    """Output pixels of one program, and the warps that work on them."""

    rows: int
    cols: int
    warps: int


def choose_tile(pixels: int, channels_last: bool) -> Tile:
    """Tile for a result of so many pixels, counted over images and groups.

    NCHW: 32 columns are whole memory lines to write, and more rows share more of what they read;
    small maps need small tiles to occupy the device. Channels last: lanes go along channels.
    """
    if channels_last:
        return Tile(4, 4, 4)  # 32 pixels would need all 255 registers to go backward
    if pixels >= 2**19:
        return Tile(16, 32, 4)
    return Tile(8, 32, 4) if pixels >= 2**16 else Tile(2, 32, 2)


def sample(
    x: Tensor, offset: Tensor, scope: Tensor | None, spec: SamplingSpec, size: tuple[int, int]
) -> Tensor:
    """Sample ``x``; all tensors dense, and the result laid out as ``x`` is."""
    shape = (*x.shape[:2], *size)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format(x))
    tile, tiles, options = _plan(x, offset, scope, out, spec)
    channels = x.shape[1] // spec.groups
    chunks = _chunks(channels, tiles, x.device)
    with on_device(x.device):
        dysample_forward_kernel[(tiles * chunks,)](
            x,
            offset,
            offset if scope is None else scope,
            out,
            *x.shape[2:],
            *size,
            spec.groups,
            chunks,
            spec.scope_factor,
            CHANNELS=channels // chunks,
            BLOCK=_block(channels // chunks, x),
            num_warps=tile.warps,
            **options,
        )
    return out


def differentiate(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
    grad_x: Tensor | None,
    grad_offset: Tensor | None,
    grad_scope: Tensor | None,
) -> None:
    """Write the gradients to the zeros given for them; all dense.

    An offset is read by one output pixel, so its gradient needs no atomics. The gradient of x is
    added up in float32 by atomics, whose order varies from run to run; under
    ``torch.use_deterministic_algorithms`` PyTorch's ``index_add_`` adds it up instead.
    """
    total = x if grad_x is None else grad_x.float()  # is grad_x itself where that is float32
    in_order = grad_x is not None and torch.are_deterministic_algorithms_enabled()
    if in_order:
        _add_in_order(total, grad, x, offset, scope, spec)
    if grad_offset is not None or (grad_x is not None and not in_order):
        tile, tiles, options = _plan(x, offset, scope, grad, spec)
        channels = x.shape[1] // spec.groups
        with on_device(x.device):
            dysample_backward_kernel[(tiles,)](
                grad,
                x,
                offset,
                offset if scope is None else scope,
                total,
                offset if grad_offset is None else grad_offset,
                offset if grad_scope is None else grad_scope,
                *x.shape[2:],
                *grad.shape[2:],
                spec.groups,
                spec.scope_factor,
                CHANNELS=channels,
                BLOCK=_block(channels, x),
                NEED_X=grad_x is not None and not in_order,
                NEED_OFFSET=grad_offset is not None,
                num_warps=tile.warps,
                **options,
            )
    if grad_x is not None and total is not grad_x:
        grad_x.copy_(total)


def _plan(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    out: Tensor,
    spec: SamplingSpec,
) -> tuple[Tile, int, dict]:
    """The tile, how many of them there are, and what the kernels are specialised on."""
    n, _, height, width = out.shape
    tile = choose_tile(n * spec.groups * height * width, is_channels_last(x))
    tiles = n * spec.groups * triton.cdiv(height, tile.rows) * triton.cdiv(width, tile.cols)
    large = max(x.numel(), offset.numel(), out.numel()) >= INT32_ELEMENTS
    return (
        tile,
        tiles,
        {
            'ROWS': tile.rows,
            'COLS': tile.cols,
            'SCALE': spec.scale_factor,
            'SHUFFLED': spec.style == 'pl',
            'DYNAMIC': scope is not None,
            'NEAREST': spec.init == 'nearest',
            'CHANNELS_LAST': is_channels_last(x),
            'OFFSET_LAST': is_channels_last(offset),
            'INDEX': tl.int64 if large else tl.int32,
        },
    )


def _block(channels: int, x: Tensor) -> int:
    return min(triton.next_power_of_2(channels), 128) if is_channels_last(x) else 1


def _chunks(channels: int, tiles: int, device: torch.device) -> int:
    """Programs that share a group's channels: more where tiles alone leave the device idle."""
    chunks = 1
    while tiles * chunks < 8 * _processors(device) and channels % (16 * chunks) == 0:
        chunks *= 2
    return chunks


@cache
def _processors(device: torch.device) -> int:
    if device.type != 'cuda':
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count


def _add_in_order(
    total: Tensor,
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
) -> None:
    """Add the gradient of x to ``total`` in an order that every run repeats."""
    n, channels, height, width = x.shape
    px, py = sampling_positions(x, offset, scope, spec, tuple(grad.shape[2:]))
    left, right, u = neighbours(px, width)
    top, bottom, v = neighbours(py, height)
    image = torch.arange(n, device=x.device).view(-1, 1, 1, 1)
    group = torch.arange(spec.groups, device=x.device)
    grad = grad.permute(0, 2, 3, 1).unflatten(3, (spec.groups, -1)).float()
    by_row = grad.new_zeros(n * height * width * spec.groups, channels // spec.groups)
    for row, row_weight in ((top, 1 - v), (bottom, v)):
        for column, weight in ((left, 1 - u), (right, u)):
            index = ((image * height + row) * width + column) * spec.groups + group
            by_row.index_add_(0, index.flatten(), (grad * row_weight * weight).flatten(0, 3))
    total.add_(by_row.view(n, height, width, channels).permute(0, 3, 1, 2))
