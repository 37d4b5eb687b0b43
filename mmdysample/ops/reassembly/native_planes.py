"""The three products of reassembly for NCHW maps on the CPU, compiled by Numba.

A fine pixel is one of ``scale * scale`` phases of its parent. With the columns of the phases apart,
a tap is a shift of a coarse row, and all loops run along coarse rows. A multiplication needs two
numbers from memory, which take longer to load than to multiply. So many sums are made at once in
registers: of four phases, and of four channels or five taps. Where phases, channels or taps are
left over, the last is computed several times; storing the same result twice does no harm.

Each value is summed by one block, without atomics and in one order, so results do not depend on
the number of threads. All maps are flat arrays.
"""

from __future__ import annotations

import numpy as np

from mmdysample.ops.native import kernel, part
from mmdysample.ops.pointers import (
    keep,
    load_each,
    load_like,
    pointer,
    skip,
    store,
    store_each,
    store_in_turn,
)
from mmdysample.ops.reassembly.native_rows import along_row, five, four, four_phases, pad, split
from mmdysample.ops.simd import LANES, add, fma_each, length, wide

CHANNELS = 4
"""Channels whose sums are made at once."""

TAPS = 5
"""Taps whose inner products are made at once."""

CHANNELS_AT_ONCE = 16
"""Channels whose windows are held for inner products: they stay in the cache."""


@along_row
@part
def _weigh(zero, i, weights, phases, width, windows, channels, line, side, target, scratch):
    """Sum the windows of four channels for four phases.

    ``weights`` has rows of ``width`` numbers, the taps of each of the four ``phases`` in turn.
    ``windows`` has the rows around the pixels, ``line`` numbers each, of each of ``channels``. In
    ``target`` stand the output, where the upper fine row of each channel begins, by how much the
    lower one lies behind, the scale, and the columns of the phases. ``scratch`` is used where the
    scale is not 2.
    """
    p = q = r = s = zero, zero, zero, zero
    for ky in range(side):
        for kx in range(side):
            values = load_each(skip(windows, ky * line + kx + i), channels, zero)
            tap = (ky * side + kx) * width + i
            p = fma_each(load_like(weights, tap + phases[0], zero), values, p)
            q = fma_each(load_like(weights, tap + phases[1], zero), values, q)
            r = fma_each(load_like(weights, tap + phases[2], zero), values, r)
            s = fma_each(load_like(weights, tap + phases[3], zero), values, s)
    out, places, below, scale, left, right = target
    if scale == 2:
        out = skip(out, 2 * i)
        store_in_turn(out, places[0], p[0], q[0])
        store_in_turn(out, places[1], p[1], q[1])
        store_in_turn(out, places[2], p[2], q[2])
        store_in_turn(out, places[3], p[3], q[3])
        out = skip(out, below)
        store_in_turn(out, places[0], r[0], s[0])
        store_in_turn(out, places[1], r[1], s[1])
        store_in_turn(out, places[2], r[2], s[2])
        store_in_turn(out, places[3], r[3], s[3])
        return
    lanes = length(zero)
    every = 0, lanes, 2 * lanes, 3 * lanes
    store_each(scratch, every, p)
    store_each(skip(scratch, 4 * lanes), every, q)
    store_each(skip(scratch, 8 * lanes), every, r)
    store_each(skip(scratch, 12 * lanes), every, s)
    for c in range(CHANNELS):
        for lane in range(lanes):
            at, from_ = places[c] + (i + lane) * scale, c * lanes + lane
            out[at + left] = scratch[from_]
            out[at + right] = scratch[from_ + 4 * lanes]
            out[at + below + left] = scratch[from_ + 8 * lanes]
            out[at + below + right] = scratch[from_ + 12 * lanes]


@kernel
def reassemble_planes(start, stop, x, kernels, out, share, height, width, side, scale, band):
    """Weighted sums of windows; a block is ``band`` coarse rows of an image and group."""
    taps, reach, fine_width = side * side, side // 2, scale * width
    fine_plane = scale * height * fine_width
    line = width + 2 * reach
    window, phase = (band + 2 * reach) * line, taps * width
    buffers = (
        np.empty(CHANNELS * window, x.dtype),
        np.empty(band * scale * scale * phase, x.dtype),
        np.empty(4 * CHANNELS * 2 * LANES, x.dtype),  # four phases, in wide vectors
    )
    windows, weights, scratch = pointer(buffers[0]), pointer(buffers[1]), pointer(buffers[2])
    from_x, from_kernels, to = pointer(x), pointer(kernels), pointer(out)
    zero = x.dtype.type(0)
    bands = (height + band - 1) // band
    channels = four(0, CHANNELS - 1, window)
    for block in range(start, stop):
        group, top = block // bands, block % bands * band
        rows = min(band, height - top)
        end = (group + 1) * share
        for fine_row in range(scale * rows):
            for t in range(taps):
                source = (group * taps + t) * fine_plane + (top * scale + fine_row) * fine_width
                target = skip(weights, fine_row * scale * phase + t * width)
                split(wide(zero), skip(from_kernels, source), width, scale, target, phase)
        for first in range(group * share, end, CHANNELS):
            for c in range(CHANNELS):
                plane = min(first + c, end - 1)
                target = skip(windows, c * window)
                pad(from_x, plane, top, rows + 2 * reach, height, width, reach, target)
            places = four(first, end - 1, fine_plane)
            for row in range(rows):
                near = skip(windows, row * line)
                own = skip(weights, row * scale * scale * phase)
                for upper in range(0, scale, 2):
                    fine_row = skip(to, ((top + row) * scale + upper) * fine_width)
                    below = min(1, scale - 1 - upper) * fine_width
                    for left in range(0, scale, 2):
                        phases = four_phases(upper, left, scale, phase)
                        target = fine_row, places, below, scale, left, min(left + 1, scale - 1)
                        rest = own, phases, width, near, channels, line, side, target, scratch
                        _weigh(zero, width, *rest)
    keep(buffers)


@along_row
@part
def _compare(like, i, queries, phases, query, count, windows, window, line, side, sums, ends, step):
    """Add inner products of four phases with all taps, over ``count`` channels, to ``sums``.

    Queries of two channels are ``query`` numbers apart; their windows are ``window``, and have rows
    of ``line``. ``phases`` says where the phases begin in a query, ``ends`` in the sums, where taps
    are ``step`` apart.
    """
    for tap in range(0, side * side, TAPS):
        shifts = five(tap, side, line, 1)
        places = five(tap, side, side * step, step)
        at = skip(sums, i)
        p = load_each(skip(at, ends[0]), places, like)
        q = load_each(skip(at, ends[1]), places, like)
        r = load_each(skip(at, ends[2]), places, like)
        s = load_each(skip(at, ends[3]), places, like)
        for c in range(count):
            values = load_each(skip(windows, c * window + i), shifts, like)
            own = c * query + i
            p = fma_each(load_like(queries, own + phases[0], like), values, p)
            q = fma_each(load_like(queries, own + phases[1], like), values, q)
            r = fma_each(load_like(queries, own + phases[2], like), values, r)
            s = fma_each(load_like(queries, own + phases[3], like), values, s)
        store_each(skip(at, ends[0]), places, p)
        store_each(skip(at, ends[1]), places, q)
        store_each(skip(at, ends[2]), places, r)
        store_each(skip(at, ends[3]), places, s)


@kernel
def similarity_planes(start, stop, query, key, out, share, height, width, side, scale):
    """Inner products with windows; a block is ``(image and group, coarse row)``."""
    taps, reach, fine_width = side * side, side // 2, scale * width
    fine_plane = scale * height * fine_width
    line = width + 2 * reach
    window, own, phase = side * line, scale * scale * width, taps * width
    buffers = (
        np.empty(CHANNELS_AT_ONCE * window, key.dtype),
        np.empty(CHANNELS_AT_ONCE * own, key.dtype),
        np.empty(scale * scale * phase, key.dtype),
    )
    windows, queries, sums = pointer(buffers[0]), pointer(buffers[1]), pointer(buffers[2])
    from_query, from_key, to = pointer(query), pointer(key), pointer(out)
    zero = key.dtype.type(0)
    for block in range(start, stop):
        group, row = block // height, block % height
        for i in range(scale * scale * phase):
            sums[i] = 0
        for first in range(0, share, CHANNELS_AT_ONCE):
            count = min(CHANNELS_AT_ONCE, share - first)
            for c in range(count):
                plane = group * share + first + c
                target = skip(windows, c * window)
                pad(from_key, plane, row, side, height, width, reach, target)
                for j in range(scale):
                    source = plane * fine_plane + (row * scale + j) * fine_width
                    target = skip(queries, c * own + j * scale * width)
                    split(wide(zero), skip(from_query, source), width, scale, target, width)
            for upper in range(0, scale, 2):
                for left in range(0, scale, 2):
                    phases = four_phases(upper, left, scale, width)
                    ends = four_phases(upper, left, scale, phase)
                    rest = (
                        queries, phases, own, count, windows, window, line, side, sums, ends, width
                    )  # fmt: skip
                    _compare(zero, width, *rest)
        for j in range(scale):
            for t in range(taps):
                target = (group * taps + t) * fine_plane + (row * scale + j) * fine_width
                for column in range(width):
                    for k in range(scale):
                        value = sums[(j * scale + k) * phase + t * width + column]
                        to[target + column * scale + k] = value
    keep(buffers)


@along_row
@part
def _gather(zero, i, weights, fine, shape, channels, sums, places):
    """Sum the products of kernels and fine values over some parents, for four channels.

    Each column of taps is summed by itself. ``shape`` has the side of a window, the parents, their
    phases, the columns of a row, the step from the kernels of a parent to those of the next, and
    the length of a row of ``sums``. There each column of taps has a row, and each channel a place.
    """
    side, parents, phases, width, step, line = shape
    for left in range(0, side, 3):
        middle, right = min(left + 1, side - 1), min(left + 2, side - 1)
        p = q = r = zero, zero, zero, zero
        for m in range(parents):
            for k in range(phases):
                values = load_each(skip(fine, (m * phases + k) * width + i), channels, zero)
                own = skip(weights, m * step + k * width + i)
                p = fma_each(load_like(own, left * phases * width, zero), values, p)
                q = fma_each(load_like(own, middle * phases * width, zero), values, q)
                r = fma_each(load_like(own, right * phases * width, zero), values, r)
        store_each(skip(sums, left * line + i), places, p)
        store_each(skip(sums, middle * line + i), places, q)
        store_each(skip(sums, right * line + i), places, r)


@along_row
@part
def _add_shifted(zero, i, rows, side, line, target):
    """Write the sum of the rows of all columns of taps, each shifted by its column."""
    total = zero
    for kx in range(side):
        total = add(total, load_like(rows, kx * line + side - 1 - kx + i, zero))
    store(target, i, total)


@kernel
def transposed_planes(start, stop, kernels, fine, out, share, height, width, side, scale, band):
    """The transpose of reassembly; a block is ``band`` coarse rows of an image and group."""
    taps, reach, fine_width = side * side, side // 2, scale * width
    fine_plane = scale * height * fine_width
    line, phases = width + 2 * reach, scale * scale
    parent = phases * width
    channel = (band + 2 * reach) * parent
    buffers = (
        np.empty(CHANNELS * channel, out.dtype),
        np.empty((band + 2 * reach) * taps * parent, out.dtype),
        np.zeros(CHANNELS * side * line, out.dtype),
    )
    values, weights, sums = pointer(buffers[0]), pointer(buffers[1]), pointer(buffers[2])
    from_kernels, from_fine, to = pointer(kernels), pointer(fine), pointer(out)
    zero = out.dtype.type(0)
    bands = (height + band - 1) // band
    channels, places = four(0, CHANNELS - 1, channel), four(0, CHANNELS - 1, side * line)
    for block in range(start, stop):
        group, top = block // bands, block % bands * band
        bottom, end = min(top + band, height), (group + 1) * share
        # The parents whose windows reach these rows.
        low, high = max(0, top - reach), min(height, bottom + reach)
        for t in range(taps):
            for row in range(scale * low, scale * high):
                source = ((group * taps + t) * scale * height + row) * fine_width
                at = (row // scale - low) * taps * parent + t * parent + row % scale * fine_width
                line_of_kernels = skip(from_kernels, source)
                split(wide(zero), line_of_kernels, width, scale, skip(weights, at), width)
        for first in range(group * share, end, CHANNELS):
            for c in range(CHANNELS):
                source = min(first + c, end - 1) * fine_plane
                for row in range(scale * low, scale * high):
                    at = c * channel + (row - scale * low) * fine_width
                    line_of_fine = skip(from_fine, source + row * fine_width)
                    split(wide(zero), line_of_fine, width, scale, skip(values, at), width)
            for row in range(top, bottom):
                begin, past = max(low, row - reach), min(high, row + reach + 1)
                # The tap of ``begin`` that has this row; that of the next parent is one row above.
                tap = (begin - low) * taps + (row + reach - begin) * side
                shape = side, past - begin, phases, width, (taps - side) * parent, line
                rest = (
                    skip(weights, tap * parent), skip(values, (begin - low) * parent), shape,
                    channels, skip(sums, reach), places,
                )  # fmt: skip
                _gather(zero, width, *rest)
                for c in range(min(CHANNELS, end - first)):
                    target = skip(to, ((first + c) * height + row) * width)
                    rows = skip(sums, c * side * line)
                    _add_shifted(zero, width, rows, side, line, target)
    keep(buffers)
