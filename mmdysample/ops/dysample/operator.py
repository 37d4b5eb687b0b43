"""The Triton kernels as operators of PyTorch: autograd, compile, export, graph capture."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmdysample.ops.backend import on_device
from mmdysample.ops.dysample.bag import INT32_ELEMENTS, four_rows, is_channels_last
from mmdysample.ops.dysample.kernel import dysample_backward_kernel, dysample_forward_kernel


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


@torch.library.custom_op('mmdysample::dysample', mutates_args=())
def dysample_triton(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    scale_factor: int,
    groups: int,
    style: str,
    scope_factor: float,
    init: str,
    height: int,
    width: int,
) -> Tensor:
    """Sample through the kernel; arguments as in :func:`mmdysample.ops.dysample`."""
    x, offset, scope = _dense(x, offset, scope)
    out = _empty_result(x, height, width)
    if out.numel() == 0:
        return out
    tile, tiles, settings = _plan(x, offset, scope, out, scale_factor, groups, style, init)
    channels = x.shape[1] // groups
    chunks = _chunks(channels, tiles, x.device)
    with on_device(x.device):
        dysample_forward_kernel[(tiles * chunks,)](
            x,
            offset,
            offset if scope is None else scope,
            out,
            *x.shape[2:],
            height,
            width,
            groups,
            chunks,
            scope_factor,
            CHANNELS=channels // chunks,
            BLOCK=_block(channels // chunks, x),
            num_warps=tile.warps,
            **settings,
        )
    return out


@dysample_triton.register_fake
def _(x, offset, scope, scale_factor, groups, style, scope_factor, init, height, width):
    return _empty_result(x, height, width)


@torch.library.custom_op('mmdysample::dysample_backward', mutates_args=())
def dysample_triton_backward(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    scale_factor: int,
    groups: int,
    style: str,
    scope_factor: float,
    init: str,
    need_x: bool,
    need_offset: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, offset and scope; those not needed or absent come back empty.

    An offset is read by one output pixel, so its gradient needs no atomics. The gradient of x is
    added up in float32 by atomics, whose order varies from run to run; under
    ``torch.use_deterministic_algorithms`` PyTorch's ``index_add_`` adds it up instead.
    """
    x, offset, scope = _dense(x, offset, scope)
    grad = grad.contiguous(memory_format=_format(x))
    grad_x, grad_offset, grad_scope = _empty_gradients(x, offset, scope, need_x, need_offset)
    grad_offset.zero_()  # a cut result leaves some unread
    grad_scope.zero_()
    total = torch.zeros_like(grad_x, dtype=torch.float32)  # is grad_x itself where that is float32
    in_order = need_x and torch.are_deterministic_algorithms_enabled()
    if in_order:
        arguments = (scale_factor, groups, style, scope_factor, init)
        _add_in_order(total, grad, x, offset, scope, *arguments)
    if grad.numel() and (need_offset or (need_x and not in_order)):
        tile, tiles, settings = _plan(x, offset, scope, grad, scale_factor, groups, style, init)
        channels = x.shape[1] // groups
        with on_device(x.device):
            dysample_backward_kernel[(tiles,)](
                grad,
                x,
                offset,
                offset if scope is None else scope,
                total,
                grad_offset,
                grad_scope,
                *x.shape[2:],
                *grad.shape[2:],
                groups,
                scope_factor,
                CHANNELS=channels,
                BLOCK=_block(channels, x),
                NEED_X=need_x and not in_order,
                NEED_OFFSET=need_offset,
                num_warps=tile.warps,
                **settings,
            )
    return total.to(x.dtype), grad_offset, grad_scope


@dysample_triton_backward.register_fake
def _(grad, x, offset, scope, scale_factor, groups, style, scope_factor, init, need_x, need_offset):
    return _empty_gradients(*_dense(x, offset, scope), need_x, need_offset)


def _setup_context(ctx, inputs, output) -> None:
    x, offset, scope, *ctx.options = inputs
    ctx.save_for_backward(x, offset, scope)


def _backward(ctx, grad):
    x, offset, scope = ctx.saved_tensors
    need_x, need_offset, need_scope = ctx.needs_input_grad[:3]
    need_offset = need_offset or need_scope
    grad_x, grad_offset, grad_scope = dysample_triton_backward(
        grad, x, offset, scope, *ctx.options[:5], need_x, need_offset
    )
    return (
        grad_x if need_x else None,
        grad_offset if need_offset else None,
        grad_scope if need_scope else None,
        *[None] * 7,
    )


dysample_triton.register_autograd(_backward, setup_context=_setup_context)


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


def _dense(x: Tensor, offset: Tensor, scope: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The inputs without holes, scope laid out as offset is; no copy in the usual case."""
    x = x.contiguous(memory_format=_format(x))
    offset = offset.contiguous(memory_format=_format(offset))
    if scope is not None:
        scope = scope.contiguous(memory_format=_format(offset))
    return x, offset, scope


def _empty_result(x: Tensor, height: int, width: int) -> Tensor:
    shape = (x.shape[0], x.shape[1], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_format(x))


def _empty_gradients(
    x: Tensor, offset: Tensor, scope: Tensor | None, need_x: bool, need_offset: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x) if need_x else x.new_empty(0),
        torch.empty_like(offset) if need_offset else offset.new_empty(0),
        torch.empty_like(scope) if need_offset and scope is not None else offset.new_empty(0),
    )


def _plan(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    out: Tensor,
    scale_factor: int,
    groups: int,
    style: str,
    init: str,
) -> tuple[Tile, int, dict]:
    """The tile, how many of them there are, and what the kernels are specialised on."""
    n, _, height, width = out.shape
    tile = choose_tile(n * groups * height * width, is_channels_last(x))
    tiles = n * groups * triton.cdiv(height, tile.rows) * triton.cdiv(width, tile.cols)
    wide = max(x.numel(), offset.numel(), out.numel()) >= INT32_ELEMENTS
    return (
        tile,
        tiles,
        {
            'ROWS': tile.rows,
            'COLS': tile.cols,
            'SCALE': scale_factor,
            'SHUFFLED': style == 'pl',
            'DYNAMIC': scope is not None,
            'NEAREST': init == 'nearest',
            'CHANNELS_LAST': is_channels_last(x),
            'OFFSET_LAST': is_channels_last(offset),
            'INDEX': tl.int64 if wide else tl.int32,
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
    scale_factor: int,
    groups: int,
    style: str,
    scope_factor: float,
    init: str,
) -> None:
    """Add the gradient of x to ``total`` in an order that every run repeats."""
    n, channels, height, width = x.shape
    rows, weights = four_rows(
        x, offset, scope, scale_factor, groups, style, scope_factor, init, tuple(grad.shape[2:])
    )
    grad = grad.permute(0, 2, 3, 1).reshape(-1, channels // groups).float()
    by_row = grad.new_zeros(n * height * width * groups, channels // groups)
    for corner in range(4):
        by_row.index_add_(0, rows[:, corner].long(), grad * weights[:, corner, None])
    total.add_(by_row.view(n, height, width, channels).permute(0, 3, 1, 2))
