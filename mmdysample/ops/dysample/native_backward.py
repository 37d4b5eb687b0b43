"""Native sampling: gradients of x, offset and scope; how, see the forward kernels."""

from __future__ import annotations

import numpy as np

from mmdysample.ops.dysample.native_rows import (
    AHEAD,
    LINES,
    SPAN,
    eight,
    fill_columns,
    find_row,
    padded,
    read_row,
    span,
    turn,
    write_row,
)
from mmdysample.ops.native import kernel, part
from mmdysample.ops.pointers import keep, load, load_like, pointer, prefetch, skip, store
from mmdysample.ops.simd import (
    add,
    fma,
    mul,
    number,
    one_minus,
    splat,
    sub,
    total,
    transpose,
    where_at_most,
    wide,
)


@part
def _add_turned(turned, x, at, plane, count):
    """Add to eight planes what lies in ``turned`` in the order of :func:`turn`."""
    for k in range(0, count - 7, 8):
        rows = transpose(eight(turned, 8 * k, 8))
        for c in range(8):
            to = at + c * plane + k
            store(x, to, add(load(x, to), rows[c]))
    for k in range(count // 8 * 8, count):
        for c in range(8):
            x[at + c * plane + k] += turned[8 * k + c]


@part
def _slopes(x, at, right, down, u, v, grad):
    """Gradients of an output pixel's position, along x and along y.

    Each of as many channels as ``grad`` and the weights have numbers.
    """
    nw, sw = load_like(x, at, grad), load_like(x, at + down, grad)
    upper = sub(load_like(x, at + right, grad), nw)
    tilt = sub(sub(load_like(x, at + right + down, grad), sw), upper)
    return mul(grad, fma(v, tilt, upper)), mul(grad, fma(u, tilt, sub(sw, nw)))


@part
def _add_corners(grad_x, at, right, down, u, v, grad):
    """Add to the gradient of an output pixel's neighbours, of as many channels."""
    lu = one_minus(u)
    part = mul(one_minus(v), grad)
    store(grad_x, at, fma(part, lu, load_like(grad_x, at, grad)))
    store(grad_x, at + right, fma(part, u, load_like(grad_x, at + right, grad)))
    at += down
    part = mul(v, grad)
    store(grad_x, at, fma(part, lu, load_like(grad_x, at, grad)))
    store(grad_x, at + right, fma(part, u, load_like(grad_x, at + right, grad)))


@part
def _slopes_turned(k, turned, first, right, down, place, u, v, grad):
    """Eight channels of the ``k``-th pixel, from turned rows that begin with pixel ``first``."""
    at = 8 * (place[k] - first)
    return _slopes(turned, at, 8 * right, 8 * down, splat(u[k]), splat(v[k]), grad)


@part
def _add_corners_turned(k, turned, first, right, down, place, u, v, grad):
    """Eight channels of the ``k``-th pixel, to turned rows that begin with pixel ``first``."""
    at = 8 * (place[k] - first)
    _add_corners(turned, at, 8 * right, 8 * down, splat(u[k]), splat(v[k]), grad)


@part
def _add_sums(line, k, vectors):
    """Add to eight numbers the sums of eight vectors."""
    a = transpose(vectors)
    sums = add(add(add(a[0], a[1]), add(a[2], a[3])), add(add(a[4], a[5]), add(a[6], a[7])))
    store(line, k, add(load(line, k), sums))


@part
def _write_gradients(
    along, found, stride, n, g, row, offset, grad_offset, grad_scope, options, lines
):
    """From gradients of the positions of an output row to those of its offsets and scopes.

    ``along`` and ``found`` begin with the row; their parts lie ``stride`` apart.
    """
    shape, strides, factor, flags = options
    out_w = shape[5]
    shuffled, dynamic, _ = flags
    one = splat(number(1, factor))
    zero = sub(one, one)
    line, scope_line = skip(lines, 2 * padded(out_w)), skip(lines, 4 * padded(out_w))
    for axis in range(2):
        slopes, gates = skip(found, (2 + axis) * stride), skip(found, (4 + axis) * stride)
        if dynamic:
            read_row(offset, n, axis, g, row, shape, strides, shuffled, line)
        for k in range(0, out_w, 8):
            slope = load(slopes, k)
            value = mul(load(along, axis * stride + k), slope)
            value = where_at_most(mul(slope, slope), zero, zero, value)
            if dynamic:
                rest = mul(load(line, k), sub(one, load(gates, k)))
                store(scope_line, k, mul(value, rest))
            store(line, k, value)
        write_row(line, grad_offset, n, axis, g, row, shape, strides, shuffled)
        if dynamic:
            write_row(scope_line, grad_scope, n, axis, g, row, shape, strides, shuffled)


@part
def _share_out(block, split, rows, groups, share):
    """What a block does: image, rows, groups, and channels within each group.

    ``split`` says into how many parts rows, groups, and in vectors of eight the channels of a
    group are cut, and then which parts of the rows: the first, and how many lie between one and
    the next. All but the image come as the first and one behind the last.
    """
    row_parts, group_parts, channel_parts, first, step = split
    c = block % channel_parts
    block = block // channel_parts
    g = block % group_parts
    block = block // group_parts
    chosen = (row_parts - first + step - 1) // step
    row = block % chosen * step + first
    vectors = (share + 7) // 8
    return (
        block // chosen,
        (rows * row // row_parts, rows * (row + 1) // row_parts),
        (groups * g // group_parts, groups * (g + 1) // group_parts),
        (8 * (vectors * c // channel_parts), min(8 * (vectors * (c + 1) // channel_parts), share)),
    )


@kernel
def backward_planes(
    start, stop, grad, x, offset, scope, grad_x, grad_offset, grad_scope, options, split, band
):
    """Differentiate NCHW maps; a block is a share of an image, see ``split``."""
    shape, _, factor, flags = options
    channels, height, width, groups, out_h, out_w, scale = shape
    share = channels // groups
    room = min(height, SPAN * (band // scale + 1))
    stride = padded(band * out_w)
    buffers = (
        np.empty(LINES * padded(out_w), x.dtype),
        np.empty(stride, np.int32),
        np.empty(6 * stride, x.dtype),
        np.empty(2 * stride, x.dtype),
        np.empty(8 * room * width, x.dtype),
        np.empty(8 * room * width, x.dtype),
    )
    lines, place, u = pointer(buffers[0]), pointer(buffers[1]), pointer(buffers[2])
    along_x, turned, added = pointer(buffers[3]), pointer(buffers[4]), pointer(buffers[5])
    v, along_y = skip(u, stride), skip(along_x, stride)
    from_grad, from_x = pointer(grad), pointer(x)
    from_offset, from_scope = pointer(offset), pointer(scope)
    if grad_x is not None:
        to_x = pointer(grad_x)
    if grad_offset is not None:
        to_offset, to_scope = pointer(grad_offset), pointer(grad_scope)
    fill_columns(lines, shape, flags[2], factor)
    right, down = int(width > 1), width if height > 1 else 0
    plane, out_plane = height * width, out_h * out_w
    for block in range(start, stop):
        n, bands, (g, _), (first_channel, last_channel) = _share_out(
            block, split, (out_h + band - 1) // band, groups, share
        )
        for first_row in range(bands[0] * band, bands[1] * band, band):
            last_row = min(first_row + band, out_h)
            count = 0
            for row in range(first_row, last_row):
                find_row(
                    n, g, row, from_offset, from_scope, options, lines, place, u, count, stride,
                    True,
                )  # fmt: skip
                count += out_w
            buffers[3][:] = 0
            first, last = span(place, count, height, width)
            first_pixel, pixels = first * width, (last - first) * width
            near = last - first <= room
            for c in range(first_channel, last_channel, 8):
                base = (n * channels + g * share + c) * plane
                out_base = (n * channels + g * share + c) * out_plane + first_row * out_w
                done = 0
                if near and c + 8 <= share:
                    if grad_offset is not None:
                        turn(from_x, base + first_pixel, plane, pixels, turned)
                    if grad_x is not None:
                        buffers[5][: 8 * pixels] = 0
                    for k in range(0, count - 7, 8):
                        d = transpose(eight(from_grad, out_base + k, out_plane))
                        if grad_x is not None:
                            at = (added, first_pixel, right, down, place, u, v)
                            _add_corners_turned(k, *at, d[0])
                            _add_corners_turned(k + 1, *at, d[1])
                            _add_corners_turned(k + 2, *at, d[2])
                            _add_corners_turned(k + 3, *at, d[3])
                            _add_corners_turned(k + 4, *at, d[4])
                            _add_corners_turned(k + 5, *at, d[5])
                            _add_corners_turned(k + 6, *at, d[6])
                            _add_corners_turned(k + 7, *at, d[7])
                        if grad_offset is not None:
                            at = (turned, first_pixel, right, down, place, u, v)
                            p0 = _slopes_turned(k, *at, d[0])
                            p1 = _slopes_turned(k + 1, *at, d[1])
                            p2 = _slopes_turned(k + 2, *at, d[2])
                            p3 = _slopes_turned(k + 3, *at, d[3])
                            p4 = _slopes_turned(k + 4, *at, d[4])
                            p5 = _slopes_turned(k + 5, *at, d[5])
                            p6 = _slopes_turned(k + 6, *at, d[6])
                            p7 = _slopes_turned(k + 7, *at, d[7])
                            _add_sums(
                                along_x,
                                k,
                                (p0[0], p1[0], p2[0], p3[0], p4[0], p5[0], p6[0], p7[0]),
                            )
                            _add_sums(
                                along_y,
                                k,
                                (p0[1], p1[1], p2[1], p3[1], p4[1], p5[1], p6[1], p7[1]),
                            )
                    if grad_x is not None:
                        _add_turned(added, to_x, base + first_pixel, plane, pixels)
                    done = count // 8 * 8
                for i in range(min(8, share - c)):
                    source, target = base + i * plane, out_base + i * out_plane
                    for k in range(done, count):
                        where, one_grad = source + place[k], from_grad[target + k]
                        if grad_x is not None:
                            _add_corners(to_x, where, right, down, u[k], v[k], one_grad)
                        if grad_offset is not None:
                            dx, dy = _slopes(from_x, where, right, down, u[k], v[k], one_grad)
                            along_x[k] += dx
                            along_y[k] += dy
            if grad_offset is not None:
                for row in range(first_row, last_row):
                    done = (row - first_row) * out_w
                    _write_gradients(
                        skip(along_x, done), skip(u, done), stride, n, g, row, from_offset,
                        to_offset, to_scope, options, lines,
                    )  # fmt: skip
    keep(buffers)


@kernel
def backward_last(
    start, stop, grad, x, offset, scope, grad_x, grad_offset, grad_scope, options, split
):
    """Differentiate channels_last maps; a block is a share of an image, see ``split``."""
    shape, _, factor, flags = options
    channels, height, width, groups, out_h, out_w, scale = shape
    share = channels // groups
    line = padded(out_w)
    stride = groups * line
    buffers = (
        np.empty(LINES * line, x.dtype),
        np.empty(stride, np.int32),
        np.empty(6 * stride, x.dtype),
        np.empty(2 * stride, x.dtype),
    )
    lines, place = pointer(buffers[0]), pointer(buffers[1])
    u, along = pointer(buffers[2]), pointer(buffers[3])
    v = skip(u, stride)
    from_grad, from_x = pointer(grad), pointer(x)
    from_offset, from_scope = pointer(offset), pointer(scope)
    if grad_x is not None:
        to_x = pointer(grad_x)
    if grad_offset is not None:
        to_offset, to_scope = pointer(grad_offset), pointer(grad_scope)
    fill_columns(lines, shape, flags[2], factor)
    right, down = channels if width > 1 else 0, width * channels if height > 1 else 0
    zero = number(0, factor)
    for block in range(start, stop):
        n, rows, (first_group, last_group), (first, last) = _share_out(
            block, split, height, groups, share
        )
        base = n * height * width * channels
        for row in range(rows[0] * scale, min(rows[1] * scale, out_h)):
            for g in range(first_group, last_group):
                find_row(
                    n, g, row, from_offset, from_scope, options, lines, place, u, g * line,
                    stride, True,
                )  # fmt: skip
            out_base = (n * out_h + row) * out_w * channels
            # All groups of a pixel in turn: its gradient and its neighbours are read once.
            for column in range(out_w):
                for g in range(first_group, last_group):
                    k = g * line + column
                    at = base + place[k] * channels + g * share + first
                    source = out_base + column * channels + g * share + first
                    weight_x, weight_y = u[k], v[k]
                    wide_x = wide_y = wide(zero)
                    for _ in range((last - first) // 16):
                        weights = wide(weight_x), wide(weight_y)
                        grads = load_like(from_grad, source, wide_x)
                        prefetch(from_grad, source + AHEAD * channels)
                        if grad_offset is not None:
                            dx, dy = _slopes(from_x, at, right, down, *weights, grads)
                            wide_x, wide_y = add(wide_x, dx), add(wide_y, dy)
                        if grad_x is not None:
                            _add_corners(to_x, at, right, down, *weights, grads)
                        at += 16
                        source += 16
                    sum_x = sum_y = splat(zero)
                    for _ in range((last - first) % 16 // 8):
                        weights = splat(weight_x), splat(weight_y)
                        grads = load(from_grad, source)
                        if grad_offset is not None:
                            sum_x, sum_y = _slopes(from_x, at, right, down, *weights, grads)
                        if grad_x is not None:
                            _add_corners(to_x, at, right, down, *weights, grads)
                        at += 8
                        source += 8
                    rest_x, rest_y = total(wide_x) + total(sum_x), total(wide_y) + total(sum_y)
                    for _ in range((last - first) % 8):
                        weights = weight_x, weight_y
                        one_grad = from_grad[source]
                        if grad_offset is not None:
                            dx, dy = _slopes(from_x, at, right, down, *weights, one_grad)
                            rest_x += dx
                            rest_y += dy
                        if grad_x is not None:
                            _add_corners(to_x, at, right, down, *weights, one_grad)
                        at += 1
                        source += 1
                    along[k] = rest_x
                    along[stride + k] = rest_y
            if grad_offset is not None:
                for g in range(first_group, last_group):
                    _write_gradients(
                        skip(along, g * line), skip(u, g * line), stride, n, g, row, from_offset,
                        to_offset, to_scope, options, lines,
                    )  # fmt: skip
    keep(buffers)
