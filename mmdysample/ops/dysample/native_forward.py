"""DySample's sampling on the CPU, compiled by Numba: forward and backward.

A block of work first finds the positions of some output rows of a channel group: the pixel to the
upper left, clamped so that its right and lower neighbours exist, and the weights of those. Then it
walks over the channels in vectors of eight. In a channels_last map these lie side by side; of an
NCHW map the rows that the positions touch are turned into that form in a small buffer, and the
result is turned back in registers. So neither layout reads single numbers.

The gradient of ``x`` is added up by one block for each image and channel, in the order of the
output pixels: it is the same for any number of threads.

Positions are whole pixels plus a displacement, as in the Triton kernels.
"""

from __future__ import annotations

import numpy as np

from mmdysample.ops.dysample.native_rows import (
    LINES,
    SPAN,
    fill_columns,
    find_row,
    padded,
    span,
    store_eight,
    turn,
)
from mmdysample.ops.native import kernel, part
from mmdysample.ops.simd import (
    fma,
    keep,
    load,
    mul,
    number,
    pointer,
    skip,
    splat,
    store,
    sub,
    transpose,
)


@part
def _blend(x, at, right, down, u, v):
    """Eight channels of an output pixel."""
    one = splat(number(1, u))
    ru, rv = splat(u), splat(v)
    lu, lv = sub(one, ru), sub(one, rv)
    upper = fma(ru, load(x, at + right), mul(lu, load(x, at)))
    at += down
    lower = fma(ru, load(x, at + right), mul(lu, load(x, at)))
    return fma(rv, lower, mul(lv, upper))


@part
def _blend_one(x, at, right, down, u, v):
    """One channel of an output pixel."""
    one = number(1, u)
    upper = fma(u, x[at + right], (one - u) * x[at])
    at += down
    lower = fma(u, x[at + right], (one - u) * x[at])
    return fma(v, lower, (one - v) * upper)  # rounded as in vectors


@part
def _blend_turned(k, turned, first, right, down, place, u, v):
    """Eight channels of the ``k``-th pixel, from turned rows that begin with pixel ``first``."""
    return _blend(turned, 8 * (place[k] - first), 8 * right, 8 * down, u[k], v[k])


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
                    to[target + k] = _blend_one(from_x, at, right, down, u[k], v[k])
    keep(buffers)


@kernel
def forward_last(start, stop, x, offset, scope, out, options):
    """Sample channels_last maps; a block is an output row of an image."""
    shape, _, factor, flags = options
    channels, height, width, groups, out_h, out_w, _ = shape
    share = channels // groups
    line = padded(out_w)
    stride = groups * line
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
        n, row = block // out_h, block % out_h
        for g in range(groups):
            find_row(
                n, g, row, from_offset, from_scope, options, lines, place, u, g * line, stride,
                False,
            )  # fmt: skip
        base = n * height * width * channels
        target = block * out_w * channels
        # All groups of a pixel in turn: its neighbours and its result are read and written once.
        for column in range(out_w):
            for g in range(groups):
                k = g * line + column
                at = base + place[k] * channels + g * share
                for _ in range(share // 8):
                    store(to, target, _blend(from_x, at, right, down, u[k], v[k]))
                    at += 8
                    target += 8
                for _ in range(share % 8):
                    to[target] = _blend_one(from_x, at, right, down, u[k], v[k])
                    at += 1
                    target += 1
    keep(buffers)
