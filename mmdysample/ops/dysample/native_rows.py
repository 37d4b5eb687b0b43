"""Native sampling: positions of a row of output pixels, and NCHW rows turned channels last."""

from __future__ import annotations

import numpy as np

from mmdysample.ops.native import part
from mmdysample.ops.simd import (
    add,
    div,
    exp,
    floor,
    fma,
    load,
    mul,
    splat,
    store,
    store_pixels,
    sub,
    transpose,
    where_at_most,
    where_less,
)

SPAN = 3
"""Most input rows of that buffer, in those of a block; where positions lie farther apart, single
numbers are read."""


@part
def _projection(n, axis, g, row, column, shape, strides, shuffled):
    """Index of the offset of the first output pixel of a row and a sub-column; step to the next."""
    groups, scale = shape[3], shape[6]
    plane = axis * groups + g
    if shuffled:
        at = n * strides[0] + plane * strides[1] + row * strides[2] + column * strides[3]
        return at, scale * strides[3]
    plane = (plane * scale + row % scale) * scale + column
    return n * strides[0] + plane * strides[1] + row // scale * strides[2], strides[3]


@part
def read_row(values, n, axis, g, row, shape, strides, shuffled, line):
    """Offsets or scopes of an output row, one axis, pixel-shuffled."""
    out_w, scale = shape[5], shape[6]
    for column in range(min(scale, out_w)):
        at, step = _projection(n, axis, g, row, column, shape, strides, shuffled)
        source, target = np.uint64(at), np.uint64(column)
        for _ in range((out_w - column + scale - 1) // scale):
            line[target] = values[source]
            source += np.uint64(step)
            target += np.uint64(scale)


@part
def write_row(line, values, n, axis, g, row, shape, strides, shuffled):
    """The reverse of :func:`read_row`."""
    out_w, scale = shape[5], shape[6]
    for column in range(min(scale, out_w)):
        at, step = _projection(n, axis, g, row, column, shape, strides, shuffled)
        target, source = np.uint64(at), np.uint64(column)
        for _ in range((out_w - column + scale - 1) // scale):
            values[target] = line[source]
            target += np.uint64(step)
            source += np.uint64(scale)


@part
def _start(sub_pixel, scale, nearest):
    """Initial position of a sub-pixel, from the centre of its input pixel."""
    return 0.0 if nearest else (sub_pixel - (scale - 1) / 2) / scale


@part
def fill_columns(pixels, starts, out_w, scale, nearest):
    """Input pixel of every output column, and its initial position from that pixel's centre."""
    for column in range(out_w):
        pixels[column] = column // scale
        starts[column] = _start(column % scale, scale, nearest)


@part
def _axis(offset, scope, at, dynamic, factor, pixel, start, length, one):
    """One axis of eight pixels: lower neighbour, weight of the upper one, slope, gate.

    The gate is the sigmoid of the scope. The slope is what a position moves by per unit of
    offset: factor times gate, and 0 where the position is clamped.
    """
    ones = splat(one)
    zero = sub(ones, ones)
    gate = ones
    if dynamic:
        gate = div(ones, add(ones, exp(sub(zero, load(scope, at)))))
    slope = mul(splat(factor), gate)
    moved = fma(load(offset, at), slope, start)
    low = sub(zero, pixel)
    high = sub(splat(length - one), pixel)
    slope = where_at_most(moved, low, zero, where_at_most(high, moved, zero, slope))
    moved = where_less(moved, low, low, moved)  # NaN passes both comparisons: to the weights,
    moved = where_less(high, moved, high, moved)
    whole = floor(moved)
    last = where_less(low, high, sub(high, ones), low)  # its upper neighbour exists
    whole = where_less(last, whole, last, whole)
    step = where_at_most(whole, last, whole, zero)  # but never into an address
    return add(pixel, step), sub(moved, whole), slope, gate


@part
def find_row(n, g, row, offset, scope, shape, strides, factor, flags, lines, place, at, found):
    """Positions of one output row of a group.

    ``place`` gets the upper left pixels. ``found`` gets, by first index: 0 and 1 the weights of
    the right and lower neighbours; 2 and 3 the slopes, 4 and 5 the gates of the two axes, where
    there is room for them. Up to seven numbers behind the row are spoilt.
    """
    height, width, out_w, scale = shape[1], shape[2], shape[5], shape[6]
    shuffled, dynamic, nearest = flags
    kind = offset.dtype.type
    one = kind(1)
    pixels, starts, offset_x, offset_y, scope_x, scope_y = lines
    read_row(offset, n, 0, g, row, shape, strides, shuffled, offset_x)
    read_row(offset, n, 1, g, row, shape, strides, shuffled, offset_y)
    if dynamic:
        read_row(scope, n, 0, g, row, shape, strides, shuffled, scope_x)
        read_row(scope, n, 1, g, row, shape, strides, shuffled, scope_y)
    parent = splat(kind(row // scale))
    start_y = splat(kind(_start(row % scale, scale, nearest)))
    stride = found.shape[1]
    flat = found.reshape(-1)
    detailed = found.shape[0] > 2
    for column in range(0, out_w, 8):
        k = np.uint64(column)
        left, u, slope_x, gate_x = _axis(
            offset_x,
            scope_x,
            k,
            dynamic,
            factor,
            load(pixels, k),
            load(starts, k),
            kind(width),
            one,
        )
        top, v, slope_y, gate_y = _axis(
            offset_y, scope_y, k, dynamic, factor, parent, start_y, kind(height), one
        )
        to = np.uint64(at) + k
        store_pixels(place, to, top, left, np.int32(width))
        store(flat, to, u)
        store(flat, to + np.uint64(stride), v)
        if detailed:
            store(flat, to + np.uint64(2 * stride), slope_x)
            store(flat, to + np.uint64(3 * stride), slope_y)
            store(flat, to + np.uint64(4 * stride), gate_x)
            store(flat, to + np.uint64(5 * stride), gate_y)


@part
def span(place, count, height, width):
    """First input row that positions touch, and one behind the last."""
    first, last = place[0], place[0]
    for k in range(count):
        first, last = min(first, place[k]), max(last, place[k])
    return np.int64(first) // width, min(np.int64(last) // width + 2, height)


@part
def eight(array, at, step):
    """Eight vectors that lie ``step`` apart."""
    s = np.uint64(step)
    at = np.uint64(at)
    return (
        load(array, at),
        load(array, at + s),
        load(array, at + np.uint64(2) * s),
        load(array, at + np.uint64(3) * s),
        load(array, at + np.uint64(4) * s),
        load(array, at + np.uint64(5) * s),
        load(array, at + np.uint64(6) * s),
        load(array, at + np.uint64(7) * s),
    )


@part
def store_eight(array, at, step, vectors):
    """Write eight vectors ``step`` apart."""
    s = np.uint64(step)
    at = np.uint64(at)
    store(array, at, vectors[0])
    store(array, at + s, vectors[1])
    store(array, at + np.uint64(2) * s, vectors[2])
    store(array, at + np.uint64(3) * s, vectors[3])
    store(array, at + np.uint64(4) * s, vectors[4])
    store(array, at + np.uint64(5) * s, vectors[5])
    store(array, at + np.uint64(6) * s, vectors[6])
    store(array, at + np.uint64(7) * s, vectors[7])


@part
def turn(x, at, plane, count, turned):
    """Pixels of eight planes, put side by side: ``turned[8 * pixel + channel]``."""
    for k in range(0, count - 7, 8):
        store_eight(turned, 8 * k, 8, transpose(eight(x, at + k, plane)))
    for k in range(count // 8 * 8, count):
        for c in range(8):
            turned[np.uint64(8 * k + c)] = x[np.uint64(at + c * plane + k)]
