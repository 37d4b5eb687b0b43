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
    SPAN,
    fill_columns,
    find_row,
    span,
    store_eight,
    turn,
)
from mmdysample.ops.native import kernel, part
from mmdysample.ops.simd import fma, load, mul, splat, store, transpose


@part
def _blend(x, at, right, down, u, v, one):
    """Eight channels of an output pixel."""
    ru, rv = splat(u), splat(v)
    lu, lv = splat(one - u), splat(one - v)
    upper = fma(ru, load(x, at + right), mul(lu, load(x, at)))
    at += down
    lower = fma(ru, load(x, at + right), mul(lu, load(x, at)))
    return fma(rv, lower, mul(lv, upper))


@part
def _blend_one(x, at, right, down, u, v, one):
    """One channel of an output pixel."""
    upper = fma(u, x[at + right], (one - u) * x[at])
    at += down
    lower = fma(u, x[at + right], (one - u) * x[at])
    return fma(v, lower, (one - v) * upper)  # rounded as in vectors


@part
def _blend_turned(k, turned, shift, right, down, place, u, v, one):
    """Eight channels of the ``k``-th pixel, from turned rows."""
    at = np.uint64(8) * np.uint64(place[k]) - shift
    return _blend(turned, at, right, down, u[k], v[k], one)


@kernel
def forward_planes(start, stop, x, offset, scope, out, shape, strides, factor, flags, band):
    """Sample NCHW maps; a block is ``band`` output rows of a channel group of an image."""
    channels, height, width, groups, out_h, out_w, scale = shape
    share = channels // groups
    one = x.dtype.type(1)
    lines = np.empty((6, out_w + 8), x.dtype)
    lines = (lines[0], lines[1], lines[2], lines[3], lines[4], lines[5])
    fill_columns(lines[0], lines[1], out_w, scale, flags[2])
    place = np.empty(band * out_w + 8, np.int32)
    found = np.empty((2, band * out_w + 8), x.dtype)
    u, v = found
    room = min(height, SPAN * (band // scale + 1))
    turned = np.empty(8 * room * width, x.dtype)
    right, down = np.uint64(width > 1), np.uint64(width if height > 1 else 0)
    right_8, down_8 = np.uint64(8) * right, np.uint64(8) * down
    plane, out_plane = height * width, out_h * out_w
    bands = (out_h + band - 1) // band
    for block in range(start, stop):
        first_row = block % bands * band
        g = block // bands % groups
        n = block // bands // groups
        count = 0
        for row in range(first_row, min(first_row + band, out_h)):
            find_row(
                n, g, row, offset, scope, shape, strides, factor, flags, lines, place, count, found
            )
            count += out_w
        first, last = span(place, count, height, width)
        shift = np.uint64(8 * first * width)
        near = last - first <= room
        for c in range(0, share, 8):
            base = (n * channels + g * share + c) * plane
            out_base = (n * channels + g * share + c) * out_plane + first_row * out_w
            done = 0
            if near and c + 8 <= share:
                turn(x, base + first * width, plane, (last - first) * width, turned)
                for k in range(0, count - 7, 8):
                    pixels = (
                        _blend_turned(k, turned, shift, right_8, down_8, place, u, v, one),
                        _blend_turned(k + 1, turned, shift, right_8, down_8, place, u, v, one),
                        _blend_turned(k + 2, turned, shift, right_8, down_8, place, u, v, one),
                        _blend_turned(k + 3, turned, shift, right_8, down_8, place, u, v, one),
                        _blend_turned(k + 4, turned, shift, right_8, down_8, place, u, v, one),
                        _blend_turned(k + 5, turned, shift, right_8, down_8, place, u, v, one),
                        _blend_turned(k + 6, turned, shift, right_8, down_8, place, u, v, one),
                        _blend_turned(k + 7, turned, shift, right_8, down_8, place, u, v, one),
                    )
                    store_eight(out, out_base + k, out_plane, transpose(pixels))
                done = count // 8 * 8
            for i in range(min(8, share - c)):
                source, target = np.uint64(base + i * plane), np.uint64(out_base + i * out_plane)
                for k in range(done, count):
                    at = source + np.uint64(place[k])
                    out[target + np.uint64(k)] = _blend_one(x, at, right, down, u[k], v[k], one)


@kernel
def forward_last(start, stop, x, offset, scope, out, shape, strides, factor, flags):
    """Sample channels_last maps; a block is an output row of an image."""
    channels, height, width, groups, out_h, out_w, scale = shape
    share = channels // groups
    one = x.dtype.type(1)
    lines = np.empty((6, out_w + 8), x.dtype)
    lines = (lines[0], lines[1], lines[2], lines[3], lines[4], lines[5])
    fill_columns(lines[0], lines[1], out_w, scale, flags[2])
    line = out_w + 8
    place = np.empty(groups * line, np.int32)
    found = np.empty((2, groups * line), x.dtype)
    u, v = found
    right = np.uint64(channels if width > 1 else 0)
    down = np.uint64(width * channels if height > 1 else 0)
    for block in range(start, stop):
        n = block // out_h
        row = block % out_h
        for g in range(groups):
            find_row(
                n, g, row, offset, scope, shape, strides, factor, flags, lines, place, g * line,
                found,
            )  # fmt: skip
        base = n * height * width * channels
        # All groups of a pixel in turn: its neighbours and its result are read and written once.
        to = np.uint64(block * out_w * channels)
        for column in range(out_w):
            for g in range(groups):
                k = g * line + column
                at = np.uint64(base + place[k] * channels + g * share)
                for _ in range(share // 8):
                    store(out, to, _blend(x, at, right, down, u[k], v[k], one))
                    at += np.uint64(8)
                    to += np.uint64(8)
                for _ in range(share % 8):
                    out[to] = _blend_one(x, at, right, down, u[k], v[k], one)
                    at += np.uint64(1)
                    to += np.uint64(1)
