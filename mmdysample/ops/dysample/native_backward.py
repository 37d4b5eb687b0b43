"""Native sampling: gradients of x, offset and scope; how, see the forward kernels."""

from __future__ import annotations

import numpy as np

from mmdysample.ops.dysample.native_rows import (
    SPAN,
    eight,
    fill_columns,
    find_row,
    read_row,
    span,
    turn,
    write_row,
)
from mmdysample.ops.native import kernel, part
from mmdysample.ops.simd import (
    add,
    fma,
    load,
    mul,
    splat,
    store,
    sub,
    total,
    transpose,
    where_at_most,
)


@part
def _add_turned(turned, x, at, plane, count):
    """Add to eight planes what lies in ``turned`` in the order of :func:`turn`."""
    for k in range(0, count - 7, 8):
        rows = transpose(eight(turned, 8 * k, 8))
        for c in range(8):
            to = np.uint64(at + c * plane + k)
            store(x, to, add(load(x, to), rows[c]))
    for k in range(count // 8 * 8, count):
        for c in range(8):
            x[np.uint64(at + c * plane + k)] += turned[np.uint64(8 * k + c)]


@part
def _slopes(x, at, right, down, u, v, grad):
    """Eight channels of an output pixel: gradients of its position, along x and along y."""
    nw, sw = load(x, at), load(x, at + down)
    upper = sub(load(x, at + right), nw)
    tilt = sub(sub(load(x, at + right + down), sw), upper)
    return mul(grad, fma(splat(v), tilt, upper)), mul(grad, fma(splat(u), tilt, sub(sw, nw)))


@part
def _slopes_one(x, at, right, down, u, v, grad):
    """One channel of an output pixel, as :func:`_slopes`."""
    upper = x[at + right] - x[at]
    tilt = x[at + right + down] - x[at + down] - upper
    return grad * (upper + v * tilt), grad * (x[at + down] - x[at] + u * tilt)


@part
def _spread(grad_x, at, right, down, u, v, grad, one):
    """Eight channels of an output pixel: add to the gradient of its four neighbours."""
    ru, lu = splat(u), splat(one - u)
    part = mul(splat(one - v), grad)
    store(grad_x, at, fma(part, lu, load(grad_x, at)))
    store(grad_x, at + right, fma(part, ru, load(grad_x, at + right)))
    at += down
    part = mul(splat(v), grad)
    store(grad_x, at, fma(part, lu, load(grad_x, at)))
    store(grad_x, at + right, fma(part, ru, load(grad_x, at + right)))


@part
def _spread_one(grad_x, at, right, down, u, v, grad, one):
    """One channel of an output pixel, as :func:`_spread`."""
    part = grad * (one - v)
    grad_x[at] += part * (one - u)
    grad_x[at + right] += part * u
    at += down
    part = grad * v
    grad_x[at] += part * (one - u)
    grad_x[at + right] += part * u


@part
def _slopes_turned(k, turned, shift, right, down, place, u, v, grad):
    """Eight channels of the ``k``-th pixel, from turned rows."""
    at = np.uint64(8) * np.uint64(place[k]) - shift
    return _slopes(turned, at, right, down, u[k], v[k], grad)


@part
def _spread_turned(k, turned, shift, right, down, place, u, v, grad, one):
    """Eight channels of the ``k``-th pixel, to turned rows."""
    at = np.uint64(8) * np.uint64(place[k]) - shift
    _spread(turned, at, right, down, u[k], v[k], grad, one)


@part
def _sums(vectors):
    """A vector of the sums of eight vectors."""
    a = transpose(vectors)
    return add(add(add(a[0], a[1]), add(a[2], a[3])), add(add(a[4], a[5]), add(a[6], a[7])))


@part
def _write_gradients(
    along, found, at, n, g, row, offset, grad_offset, grad_scope, shape, strides, flags, lines
):
    """From gradients of the positions of an output row to those of its offsets and scopes."""
    out_w = shape[5]
    shuffled, dynamic, _ = flags
    one = splat(offset.dtype.type(1))
    zero = sub(one, one)
    line, scope_line = lines[2], lines[4]
    for axis in range(2):
        slopes, gates = found[2 + axis], found[4 + axis]
        if dynamic:
            read_row(offset, n, axis, g, row, shape, strides, shuffled, line)
        for column in range(0, out_w, 8):
            k = np.uint64(column)
            from_ = np.uint64(at) + k
            slope = load(slopes, from_)
            value = mul(load(along[axis], from_), slope)
            value = where_at_most(mul(slope, slope), zero, zero, value)
            if dynamic:
                rest = mul(load(line, k), sub(one, load(gates, from_)))
                store(scope_line, k, mul(value, rest))
            store(line, k, value)
        write_row(line, grad_offset, n, axis, g, row, shape, strides, shuffled)
        if dynamic:
            write_row(scope_line, grad_scope, n, axis, g, row, shape, strides, shuffled)


@part
def _share_out(block, split, rows, units, groups):
    """Image, group, first and last row band, first and last unit of channels of a block."""
    row_parts, channel_parts = split
    part = block % channel_parts
    block = block // channel_parts
    row_part = block % row_parts
    block = block // row_parts
    return (
        block // groups, block % groups,
        rows * row_part // row_parts, rows * (row_part + 1) // row_parts,
        units * part // channel_parts, units * (part + 1) // channel_parts,
    )  # fmt: skip


@kernel
def backward_planes(
    start, stop, grad, x, offset, scope, grad_x, grad_offset, grad_scope, shape, strides, factor,
    flags, split, band,
):  # fmt: skip
    """Differentiate NCHW maps; a block is a share of a group's rows and channels, see ``split``."""
    channels, height, width, groups, out_h, out_w, scale = shape
    share = channels // groups
    one = x.dtype.type(1)
    lines = np.empty((6, out_w + 8), x.dtype)
    lines = (lines[0], lines[1], lines[2], lines[3], lines[4], lines[5])
    fill_columns(lines[0], lines[1], out_w, scale, flags[2])
    place = np.empty(band * out_w + 8, np.int32)
    found = np.empty((6, band * out_w + 8), x.dtype)
    along = np.empty((2, band * out_w + 8), x.dtype)
    u, v, along_x, along_y = found[0], found[1], along[0], along[1]
    room = min(height, SPAN * (band // scale + 1))
    turned = np.empty(8 * room * width, x.dtype)
    added = np.empty(8 * room * width, x.dtype)
    right, down = np.uint64(width > 1), np.uint64(width if height > 1 else 0)
    r8, d8 = np.uint64(8) * right, np.uint64(8) * down
    plane, out_plane = height * width, out_h * out_w
    bands, units = (out_h + band - 1) // band, (share + 7) // 8
    for block in range(start, stop):
        n, g, first_band, last_band, first_unit, last_unit = _share_out(
            block, split, bands, units, groups
        )
        for first_row in range(first_band * band, last_band * band, band):
            last_row = min(first_row + band, out_h)
            count = 0
            for row in range(first_row, last_row):
                find_row(
                    n, g, row, offset, scope, shape, strides, factor, flags, lines, place, count,
                    found,
                )  # fmt: skip
                count += out_w
            along[:] = 0
            first, last = span(place, count, height, width)
            shift = np.uint64(8 * first * width)
            touched = (last - first) * width
            near = last - first <= room
            for c in range(8 * first_unit, min(8 * last_unit, share), 8):
                base = (n * channels + g * share + c) * plane
                out_base = (n * channels + g * share + c) * out_plane + first_row * out_w
                done = 0
                if near and c + 8 <= share:
                    if grad_offset is not None:
                        turn(x, base + first * width, plane, touched, turned)
                    if grad_x is not None:
                        added[: 8 * touched] = 0
                    for k in range(0, count - 7, 8):
                        gs = transpose(eight(grad, out_base + k, out_plane))
                        if grad_x is not None:
                            _spread_turned(k, added, shift, r8, d8, place, u, v, gs[0], one)
                            _spread_turned(k + 1, added, shift, r8, d8, place, u, v, gs[1], one)
                            _spread_turned(k + 2, added, shift, r8, d8, place, u, v, gs[2], one)
                            _spread_turned(k + 3, added, shift, r8, d8, place, u, v, gs[3], one)
                            _spread_turned(k + 4, added, shift, r8, d8, place, u, v, gs[4], one)
                            _spread_turned(k + 5, added, shift, r8, d8, place, u, v, gs[5], one)
                            _spread_turned(k + 6, added, shift, r8, d8, place, u, v, gs[6], one)
                            _spread_turned(k + 7, added, shift, r8, d8, place, u, v, gs[7], one)
                        if grad_offset is not None:
                            p0 = _slopes_turned(k, turned, shift, r8, d8, place, u, v, gs[0])
                            p1 = _slopes_turned(k + 1, turned, shift, r8, d8, place, u, v, gs[1])
                            p2 = _slopes_turned(k + 2, turned, shift, r8, d8, place, u, v, gs[2])
                            p3 = _slopes_turned(k + 3, turned, shift, r8, d8, place, u, v, gs[3])
                            p4 = _slopes_turned(k + 4, turned, shift, r8, d8, place, u, v, gs[4])
                            p5 = _slopes_turned(k + 5, turned, shift, r8, d8, place, u, v, gs[5])
                            p6 = _slopes_turned(k + 6, turned, shift, r8, d8, place, u, v, gs[6])
                            p7 = _slopes_turned(k + 7, turned, shift, r8, d8, place, u, v, gs[7])
                            to = np.uint64(k)
                            sums = _sums((p0[0], p1[0], p2[0], p3[0], p4[0], p5[0], p6[0], p7[0]))
                            store(along_x, to, add(load(along_x, to), sums))
                            sums = _sums((p0[1], p1[1], p2[1], p3[1], p4[1], p5[1], p6[1], p7[1]))
                            store(along_y, to, add(load(along_y, to), sums))
                    if grad_x is not None:
                        _add_turned(added, grad_x, base + first * width, plane, touched)
                    done = count // 8 * 8
                for one_channel in range(min(8, share - c)):
                    source = np.uint64(base + one_channel * plane)
                    target = np.uint64(out_base + one_channel * out_plane)
                    for k in range(done, count):
                        at, one_grad = source + np.uint64(place[k]), grad[target + np.uint64(k)]
                        if grad_x is not None:
                            _spread_one(grad_x, at, right, down, u[k], v[k], one_grad, one)
                        if grad_offset is not None:
                            dx, dy = _slopes_one(x, at, right, down, u[k], v[k], one_grad)
                            along_x[k] += dx
                            along_y[k] += dy
            if grad_offset is not None:
                for row in range(first_row, last_row):
                    _write_gradients(
                        along, found, (row - first_row) * out_w, n, g, row, offset, grad_offset,
                        grad_scope, shape, strides, flags, lines,
                    )  # fmt: skip


@kernel
def backward_last(
    start, stop, grad, x, offset, scope, grad_x, grad_offset, grad_scope, shape, strides, factor,
    flags, split,
):  # fmt: skip
    """Differentiate channels_last maps; blocks as in :func:`backward_planes`."""
    channels, height, width, groups, out_h, out_w, scale = shape
    share = channels // groups
    one = x.dtype.type(1)
    zeros = splat(one - one)
    lines = np.empty((6, out_w + 8), x.dtype)
    lines = (lines[0], lines[1], lines[2], lines[3], lines[4], lines[5])
    fill_columns(lines[0], lines[1], out_w, scale, flags[2])
    place = np.empty(out_w + 8, np.int32)
    found = np.empty((6, out_w + 8), x.dtype)
    along = np.empty((2, out_w + 8), x.dtype)
    u, v = found[0], found[1]
    right = np.uint64(channels if width > 1 else 0)
    down = np.uint64(width * channels if height > 1 else 0)
    for block in range(start, stop):
        n, g, first_row, last_row, first_unit, last_unit = _share_out(
            block, split, out_h, (share + 7) // 8, groups
        )
        first, last = 8 * first_unit, min(8 * last_unit, share)
        base = n * height * width * channels + g * share + first
        for row in range(first_row, last_row):
            find_row(
                n, g, row, offset, scope, shape, strides, factor, flags, lines, place, 0, found
            )
            out_base = (n * out_h + row) * out_w * channels + g * share + first
            for k in range(out_w):
                at = np.uint64(base + place[k] * channels)
                to = np.uint64(out_base + k * channels)
                sum_x, sum_y = zeros, zeros
                for _ in range((last - first) // 8):
                    eight = load(grad, to)
                    if grad_x is not None:
                        _spread(grad_x, at, right, down, u[k], v[k], eight, one)
                    if grad_offset is not None:
                        dx, dy = _slopes(x, at, right, down, u[k], v[k], eight)
                        sum_x, sum_y = add(sum_x, dx), add(sum_y, dy)
                    at += np.uint64(8)
                    to += np.uint64(8)
                rest_x, rest_y = total(sum_x), total(sum_y)
                for _ in range((last - first) % 8):
                    if grad_x is not None:
                        _spread_one(grad_x, at, right, down, u[k], v[k], grad[to], one)
                    if grad_offset is not None:
                        dx, dy = _slopes_one(x, at, right, down, u[k], v[k], grad[to])
                        rest_x += dx
                        rest_y += dy
                    at += np.uint64(1)
                    to += np.uint64(1)
                along[0, k] = rest_x
                along[1, k] = rest_y
            if grad_offset is not None:
                _write_gradients(
                    along, found, 0, n, g, row, offset, grad_offset, grad_scope, shape, strides,
                    flags, lines,
                )  # fmt: skip
