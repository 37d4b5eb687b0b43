"""DySample's sampling on the CPU, compiled by Numba: forward and backward.

A block of work first finds the positions of some output rows of a channel group: the pixel to the
upper left, clamped so that its right and lower neighbours exist, and the weights of those. Then it
walks over the channels in vectors. In a channels_last map these lie side by side; of an
NCHW map the rows that the positions touch are turned into that form in a small buffer, and the
result is turned back in registers. So neither layout reads single numbers.

Each number of the gradient of ``x`` is added up by one thread at a time, in an order that does not
depend on how many there are.

Positions are whole pixels plus a displacement, as in the Triton kernels.
"""

from __future__ import annotations

import numpy as np

from mmdysample.ops.dysample.native_rows import (
    AHEAD,
    LINES,
    SPAN,
    STRIP,
    fill_columns,
    find_row,
    padded,
    span,
    store_eight,
    turn,
)
from mmdysample.ops.native import kernel, part
from mmdysample.ops.pointers import (
    keep,
    load_like,
    pointer,
    prefetch,
    prefetch_to_write,
    skip,
    store,
)
from mmdysample.ops.simd import fma, mul, one_minus, splat, transpose, wide


@part
def _blend(x, at, right, down, u, v):
    """Channels of an output pixel, as many as the weights have numbers."""
    lu, lv = one_minus(u), one_minus(v)
    upper = fma(u, load_like(x, at + right, u), mul(lu, load_like(x, at, u)))
    at += down
    lower = fma(u, load_like(x, at + right, u), mul(lu, load_like(x, at, u)))
    return fma(v, lower, mul(lv, upper))


@part
def _blend_turned(k, turned, first, right, down, place, u, v):
    """Eight channels of the ``k``-th pixel, from turned rows that begin with pixel ``first``."""
    at = 8 * (place[k] - first)
    return _blend(turned, at, 8 * right, 8 * down, splat(u[k]), splat(v[k]))


@kernel
def forward_planes(start, stop, x, offset, scope, out, options, band):
    """Sample NCHW maps; a block is ``band`` output rows of a channel group of an image."""
    shape, _, factor, flags = options
    channels, height, width, groups, out_h, out_w, scale = shape
    share = channels // groups
    room = min(height, SPAN * (band // scale + 1))
    stride = padded(band * out_w)
    buffers = (
        np.empty(LINES * padded(out_w), x.dtype),
        np.empty(stride, np.int32),
        np.empty(2 * stride, x.dtype),
        np.empty(8 * room * width, x.dtype),
    )
    lines, place, u, turned = (
        pointer(buffers[0]),
        pointer(buffers[1]),
        pointer(buffers[2]),
        pointer(buffers[3]),
    )
    v = skip(u, stride)
    from_x, from_offset, from_scope, to = pointer(x), pointer(offset), pointer(scope), pointer(out)
    fill_columns(lines, shape, flags[2], factor)
    right, down = int(width > 1), width if height > 1 else 0
    plane, out_plane = height * width, out_h * out_w
    bands = (out_h + band - 1) // band
    for block in range(start, stop):
        first_row = block % bands * band
        g = block // bands % groups
        n = block // bands // groups
        count = 0
        for row in range(first_row, min(first_row + band, out_h)):
            find_row(
                n, g, row, from_offset, from_scope, options, lines, place, u, count, stride, False
            )
            count += out_w
        first, last = span(place, count, height, width)
        first_pixel, pixels = first * width, (last - first) * width
        near = last - first <= room
        for c in range(0, share, 8):
            base = (n * channels + g * share + c) * plane
            out_base = (n * channels + g * share + c) * out_plane + first_row * out_w
            done = 0
            if near and c + 8 <= share:
                turn(from_x, base + first_pixel, plane, pixels, turned)
                for k in range(0, count - 7, 8):
                    blended = (
                        _blend_turned(k, turned, first_pixel, right, down, place, u, v),
                        _blend_turned(k + 1, turned, first_pixel, right, down, place, u, v),
                        _blend_turned(k + 2, turned, first_pixel, right, down, place, u, v),
                        _blend_turned(k + 3, turned, first_pixel, right, down, place, u, v),
                        _blend_turned(k + 4, turned, first_pixel, right, down, place, u, v),
                        _blend_turned(k + 5, turned, first_pixel, right, down, place, u, v),
                        _blend_turned(k + 6, turned, first_pixel, right, down, place, u, v),
                        _blend_turned(k + 7, turned, first_pixel, right, down, place, u, v),
                    )
                    store_eight(to, out_base + k, out_plane, transpose(blended))
                done = count // 8 * 8
            for i in range(min(8, share - c)):
                source, target = base + i * plane, out_base + i * out_plane
                for k in range(done, count):
                    at = source + place[k]
                    to[target + k] = _blend(from_x, at, right, down, u[k], v[k])
    keep(buffers)


@kernel
def forward_last(start, stop, x, offset, scope, out, options):
    """Sample channels_last maps; a block is the output rows of an input row of an image."""
    shape, _, factor, flags = options
    channels, height, width, groups, out_h, out_w, scale = shape
    share = channels // groups
    line = padded(out_w)
    stride = scale * groups * line
    buffers = (
        np.empty(LINES * line, x.dtype),
        np.empty(stride, np.int32),
        np.empty(2 * stride, x.dtype),
    )
    lines, place, u = pointer(buffers[0]), pointer(buffers[1]), pointer(buffers[2])
    v = skip(u, stride)
    from_x, from_offset, from_scope, to = pointer(x), pointer(offset), pointer(scope), pointer(out)
    fill_columns(lines, shape, flags[2], factor)
    right, down = channels if width > 1 else 0, width * channels if height > 1 else 0
    for block in range(start, stop):
        n, first_row = block // height, block % height * scale
        rows = min(scale, out_h - first_row)
        for i in range(rows * groups):
            find_row(
                n, i % groups, first_row + i // groups, from_offset, from_scope, options, lines,
                place, u, i * line, stride, False,
            )  # fmt: skip
        base = n * height * width * channels
        # All groups of a pixel in turn: its result is written once. All rows of a strip in turn:
        # they read the same pixels.
        for piece in range((out_w + STRIP - 1) // STRIP * rows):
            first, row = piece // rows * STRIP, piece % rows
            target = ((n * out_h + first_row + row) * out_w + first) * channels
            for i in range(min(STRIP, out_w - first) * groups):
                g = i % groups
                k = (row * groups + g) * line + first + i // groups
                at = base + place[k] * channels + g * share
                weight_x, weight_y = u[k], v[k]
                for _ in range(share // 16):
                    weights = wide(weight_x), wide(weight_y)
                    prefetch(from_x, at + down + AHEAD * channels)
                    prefetch_to_write(to, target + AHEAD * channels)
                    store(to, target, _blend(from_x, at, right, down, *weights))
                    at += 16
                    target += 16
                for _ in range(share % 16 // 8):
                    weights = splat(weight_x), splat(weight_y)
                    store(to, target, _blend(from_x, at, right, down, *weights))
                    at += 8
                    target += 8
                for _ in range(share % 8):
                    to[target] = _blend(from_x, at, right, down, weight_x, weight_y)
                    at += 1
                    target += 1
    keep(buffers)
