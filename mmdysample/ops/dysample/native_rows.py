"""Native sampling: positions of a row of output pixels, and NCHW rows turned channels last."""

from __future__ import annotations

from mmdysample.ops.native import part
from mmdysample.ops.pointers import load, skip, store, store_pixels
from mmdysample.ops.simd import (
    add,
    div,
    exp,
    floor,
    fma,
    mul,
    number,
    splat,
    sub,
    transpose,
    where_at_most,
    where_less,
)

SPAN = 3
"""Most input rows of that buffer, in those of a block; where positions lie farther apart, single
numbers are read."""

AHEAD = 4
"""Pixels between the one that is worked on and the one whose channels are fetched, channels last:
with groups, strips and positions apart the processor foresees neither reads nor writes."""

STRIP = 4
"""Output pixels of a row before the next row's turn comes, channels last."""

LINES = 6
"""Rows of numbers that :func:`find_row` works in, each :func:`padded`: for the columns their input
pixels and initial positions, for both axes offsets and scopes."""


@part
def padded(count):
    """Room for so many numbers where whole vectors are written."""
    return count + 8


@part
def read_row(values, n, axis, g, row, shape, strides, shuffled, line):
    """Offsets or scopes of an output row, one axis, pixel-shuffled."""
    groups, out_w, scale = shape[3], shape[5], shape[6]
    plane = axis * groups + g
    if shuffled:
        source = n * strides[0] + plane * strides[1] + row * strides[2]
        for column in range(out_w):
            line[column] = values[source + column * strides[3]]
        return
    first = n * strides[0] + row // scale * strides[2]
    plane = (plane * scale + row % scale) * scale
    for column in range(min(scale, out_w)):
        source = first + (plane + column) * strides[1]
        for i in range((out_w - column + scale - 1) // scale):
            line[column + i * scale] = values[source + i * strides[3]]


@part
def write_row(line, values, n, axis, g, row, shape, strides, shuffled):
    """The reverse of :func:`read_row`."""
    groups, out_w, scale = shape[3], shape[5], shape[6]
    plane = axis * groups + g
    if shuffled:
        target = n * strides[0] + plane * strides[1] + row * strides[2]
        for column in range(out_w):
            values[target + column * strides[3]] = line[column]
        return
    first = n * strides[0] + row // scale * strides[2]
    plane = (plane * scale + row % scale) * scale
    for column in range(min(scale, out_w)):
        target = first + (plane + column) * strides[1]
        for i in range((out_w - column + scale - 1) // scale):
            values[target + i * strides[3]] = line[column + i * scale]


@part
def _start(sub_pixel, scale, nearest):
    """Initial position of a sub-pixel, from the centre of its input pixel."""
    return 0.0 if nearest else (sub_pixel - (scale - 1) / 2) / scale


@part
def fill_columns(lines, shape, nearest, one):
    """Input pixel of every output column, and its initial position from that pixel's centre."""
    out_w, scale = shape[5], shape[6]
    for sub_pixel in range(scale):
        start = number(_start(sub_pixel, scale, nearest), one)
        for pixel in range((out_w - sub_pixel + scale - 1) // scale):
            column = pixel * scale + sub_pixel
            lines[column] = number(pixel, one)
            lines[padded(out_w) + column] = start


@part
def _axis(offset, scope, at, dynamic, factor, pixel, start, length):
    """One axis of eight pixels: lower neighbour, weight of the upper one, slope, gate.

    The gate is the sigmoid of the scope. The slope is what a position moves by per unit of
    offset: factor times gate, and 0 where the position is clamped.
    """
    ones = splat(number(1, factor))
    zero = sub(ones, ones)
    gate = ones
    if dynamic:
        gate = div(ones, add(ones, exp(sub(zero, load(scope, at)))))
    slope = mul(splat(factor), gate)
    moved = fma(load(offset, at), slope, start)
    low = sub(zero, pixel)
    high = sub(splat(number(length - 1, factor)), pixel)
    slope = where_at_most(moved, low, zero, where_at_most(high, moved, zero, slope))
    moved = where_less(moved, low, low, moved)  # NaN passes both comparisons: to the weights,
    moved = where_less(high, moved, high, moved)
    whole = floor(moved)
    last = where_less(low, high, sub(high, ones), low)  # its upper neighbour exists
    whole = where_less(last, whole, last, whole)
    step = where_at_most(whole, last, whole, zero)  # but never into an address
    return add(pixel, step), sub(moved, whole), slope, gate


@part
def find_row(n, g, row, offset, scope, options, lines, place, found, at, stride, detailed):
    """Positions of one output row of a group.

    ``place[at]`` and behind get the upper left pixels. ``found`` gets, ``stride`` apart: the
    weights of the right and lower neighbours, and with ``detailed`` the slopes and the gates of
    the two axes. Up to seven numbers behind the row are spoilt.
    """
    shape, strides, factor, flags = options
    height, width, out_w, scale = shape[1], shape[2], shape[5], shape[6]
    shuffled, dynamic, nearest = flags
    line = padded(out_w)
    read_row(offset, n, 0, g, row, shape, strides, shuffled, skip(lines, 2 * line))
    read_row(offset, n, 1, g, row, shape, strides, shuffled, skip(lines, 3 * line))
    if dynamic:
        read_row(scope, n, 0, g, row, shape, strides, shuffled, skip(lines, 4 * line))
        read_row(scope, n, 1, g, row, shape, strides, shuffled, skip(lines, 5 * line))
    parent = splat(number(row // scale, factor))
    start = splat(number(_start(row % scale, scale, nearest), factor))
    for k in range(0, out_w, 8):
        columns, starts = load(lines, k), load(lines, line + k)
        across, down = skip(lines, 2 * line), skip(lines, 3 * line)
        left, u, slope_x, gate_x = _axis(
            across, skip(across, 2 * line), k, dynamic, factor, columns, starts, width
        )
        top, v, slope_y, gate_y = _axis(
            down, skip(down, 2 * line), k, dynamic, factor, parent, start, height
        )
        store_pixels(place, at + k, top, left, number(width, place[0]))
        store(found, at + k, u)
        store(found, at + k + stride, v)
        if detailed:
            store(found, at + k + 2 * stride, slope_x)
            store(found, at + k + 3 * stride, slope_y)
            store(found, at + k + 4 * stride, gate_x)
            store(found, at + k + 5 * stride, gate_y)


@part
def span(place, count, height, width):
    """First input row that positions touch, and one behind the last."""
    first, last = place[0], place[0]
    for k in range(count):
        first, last = min(first, place[k]), max(last, place[k])
    return first // width, min(last // width + 2, height)


@part
def eight(source, at, step):
    """Eight vectors that lie ``step`` apart."""
    return (
        load(source, at),
        load(source, at + step),
        load(source, at + 2 * step),
        load(source, at + 3 * step),
        load(source, at + 4 * step),
        load(source, at + 5 * step),
        load(source, at + 6 * step),
        load(source, at + 7 * step),
    )


@part
def store_eight(target, at, step, vectors):
    """Write eight vectors ``step`` apart."""
    store(target, at, vectors[0])
    store(target, at + step, vectors[1])
    store(target, at + 2 * step, vectors[2])
    store(target, at + 3 * step, vectors[3])
    store(target, at + 4 * step, vectors[4])
    store(target, at + 5 * step, vectors[5])
    store(target, at + 6 * step, vectors[6])
    store(target, at + 7 * step, vectors[7])


@part
def turn(x, at, plane, count, turned):
    """Pixels of eight planes, put side by side: ``turned[8 * pixel + channel]``."""
    for k in range(0, count - 7, 8):
        store_eight(turned, 8 * k, 8, transpose(eight(x, at + k, plane)))
    for k in range(count // 8 * 8, count):
        for c in range(8):
            turned[8 * k + c] = x[at + c * plane + k]
