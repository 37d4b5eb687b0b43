"""The three products of reassembly for the CPU, compiled by Numba.

Each comes in two forms. In planes (NCHW) the coarse rows of a window are stretched to the width of
the fine map, so that a tap is a shift and all loops run along contiguous rows. In pixels
(channels_last) loops run over the contiguous channels of a group. A block is one coarse row: of one
image and group in planes, of one image in pixels. Each value is summed by one block, without
atomics and in one order, so results do not depend on the number of threads.

All maps are flat arrays. ``kernels`` and ``similarities`` of the second form come with their
element strides ``(image, channel, row, column)``, for both layouts occur.
"""

from __future__ import annotations

import numpy as np

from mmdysample.ops.native import kernel

CHANNELS_AT_ONCE = 16
"""Channels whose stretched windows are held at a time: they stay in the cache."""


@kernel
def _add_products(sums, at, a, a_rows, b, b_rows, count, length):
    """``sums[at:at + length] += a_row * b_row`` over ``count`` pairs of rows, four at a time."""
    m = 0
    while m + 4 <= count:
        a0, a1, a2, a3 = a_rows[m], a_rows[m + 1], a_rows[m + 2], a_rows[m + 3]
        b0, b1, b2, b3 = b_rows[m], b_rows[m + 1], b_rows[m + 2], b_rows[m + 3]
        for i in range(length):
            first = a[a0 + i] * b[b0 + i] + a[a1 + i] * b[b1 + i]
            sums[at + i] += first + (a[a2 + i] * b[b2 + i] + a[a3 + i] * b[b3 + i])
        m += 4
    while m < count:
        a0, b0 = a_rows[m], b_rows[m]
        for i in range(length):
            sums[at + i] += a[a0 + i] * b[b0 + i]
        m += 1


@kernel
def add_scaled(sums, at, weights, b, b_rows, count, length):
    """``sums[at:at + length] += weight * b_row`` over ``count`` rows, four at a time."""
    m = 0
    while m + 4 <= count:
        w0, w1, w2, w3 = weights[m], weights[m + 1], weights[m + 2], weights[m + 3]
        b0, b1, b2, b3 = b_rows[m], b_rows[m + 1], b_rows[m + 2], b_rows[m + 3]
        for i in range(length):
            first = w0 * b[b0 + i] + w1 * b[b1 + i]
            sums[at + i] += first + (w2 * b[b2 + i] + w3 * b[b3 + i])
        m += 4
    while m < count:
        w0, b0 = weights[m], b_rows[m]
        for i in range(length):
            sums[at + i] += w0 * b[b0 + i]
        m += 1


@kernel
def _stretch(x, plane, row, height, width, side, scale, target, at):
    """Copy the ``side`` rows around ``row``, each pixel ``scale`` times; zeros stay outside."""
    reach = side // 2
    length = scale * (width + side - 1)
    for ky in range(side):
        y = row + ky - reach
        line = at + ky * length + reach * scale
        if y < 0 or y >= height:
            target[line : line + scale * width] = 0
            continue
        source = np.uint64((plane * height + y) * width)
        place = np.uint64(line)
        for column in range(np.uint64(width)):
            value = x[source + column]
            for _ in range(scale):
                target[place] = value
                place += np.uint64(1)


@kernel
def reassemble_planes(start, stop, x, kernels, out, share, height, width, side, scale):
    """Weighted sums of windows; a block is ``(image and group, coarse row)``."""
    taps, fine_width = side * side, scale * width
    fine_plane = scale * height * fine_width
    length = scale * (width + side - 1)
    window = np.zeros(side * length, x.dtype)
    kernel_rows = np.empty(taps, np.uint64)
    window_rows = np.empty(taps, np.uint64)
    for t in range(taps):
        window_rows[t] = t // side * length + t % side * scale
    for block in range(start, stop):
        group, row = block // height, block % height
        for c in range(share):
            plane = group * share + c
            _stretch(x, plane, row, height, width, side, scale, window, 0)
            for fine_row in range(row * scale, row * scale + scale):
                for t in range(taps):
                    kernel_rows[t] = (group * taps + t) * fine_plane + fine_row * fine_width
                at = plane * fine_plane + fine_row * fine_width
                out[at : at + fine_width] = 0
                _add_products(
                    out, np.uint64(at), kernels, kernel_rows, window, window_rows, taps,
                    np.uint64(fine_width),
                )  # fmt: skip


@kernel
def similarity_planes(start, stop, query, key, out, share, height, width, side, scale):
    """Inner products with windows; a block is ``(image and group, coarse row)``."""
    taps, fine_width = side * side, scale * width
    fine_plane = scale * height * fine_width
    length = scale * (width + side - 1)
    windows = np.zeros(CHANNELS_AT_ONCE * side * length, key.dtype)
    query_rows = np.empty(CHANNELS_AT_ONCE, np.uint64)
    window_rows = np.empty(CHANNELS_AT_ONCE, np.uint64)
    for block in range(start, stop):
        group, row = block // height, block % height
        for t in range(taps):
            at = (group * taps + t) * fine_plane + row * scale * fine_width
            out[at : at + scale * fine_width] = 0
        for first in range(0, share, CHANNELS_AT_ONCE):
            count = min(CHANNELS_AT_ONCE, share - first)
            for c in range(count):
                plane = group * share + first + c
                _stretch(key, plane, row, height, width, side, scale, windows, c * side * length)
            for fine_row in range(row * scale, row * scale + scale):
                for c in range(count):
                    plane = group * share + first + c
                    query_rows[c] = plane * fine_plane + fine_row * fine_width
                for t in range(taps):
                    for c in range(count):
                        window_rows[c] = (c * side + t // side) * length + t % side * scale
                    at = (group * taps + t) * fine_plane + fine_row * fine_width
                    _add_products(
                        out, np.uint64(at), query, query_rows, windows, window_rows, count,
                        np.uint64(fine_width),
                    )  # fmt: skip


@kernel
def transposed_planes(start, stop, kernels, fine, out, share, height, width, side, scale):
    """The transpose of reassembly; a block is ``(image and group, coarse row)``."""
    taps, fine_width, reach = side * side, scale * width, side // 2
    fine_plane = scale * height * fine_width
    length = scale * (width + side - 1)
    sums = np.empty(length, out.dtype)
    kernel_rows = np.empty(side * scale, np.uint64)
    fine_rows = np.empty(side * scale, np.uint64)
    for block in range(start, stop):
        group, row = block // height, block % height
        for c in range(share):
            plane = group * share + c
            sums[:] = 0
            for kx in range(side):
                count = 0
                for ky in range(side):
                    y = row - ky + reach  # the parent that has this row at this tap
                    if y < 0 or y >= height:
                        continue
                    for fine_row in range(y * scale, y * scale + scale):
                        tap = group * taps + ky * side + kx
                        kernel_rows[count] = tap * fine_plane + fine_row * fine_width
                        fine_rows[count] = plane * fine_plane + fine_row * fine_width
                        count += 1
                _add_products(
                    sums, np.uint64(kx * scale), kernels, kernel_rows, fine, fine_rows, count,
                    np.uint64(fine_width),
                )  # fmt: skip
            for column in range(width):
                total = sums[(column + reach) * scale]
                for j in range(1, scale):
                    total += sums[(column + reach) * scale + j]
                out[(plane * height + row) * width + column] = total


@kernel
def reassemble_pixels(
    start, stop, x, kernels, strides, out, groups, share, height, width, side, scale
):
    """Weighted sums of windows; a block is ``(image, coarse row)``."""
    reach, channels = side // 2, groups * share
    weights = np.empty(side * side, x.dtype)
    pixels = np.empty(side * side, np.uint64)
    for block in range(start, stop):
        image, row = block // height, block % height
        for fine_row in range(row * scale, row * scale + scale):
            for fine_column in range(scale * width):
                column = fine_column // scale
                corner = image * strides[0] + fine_row * strides[2] + fine_column * strides[3]
                pixel = (image * scale * height + fine_row) * scale * width + fine_column
                out[pixel * channels : (pixel + 1) * channels] = 0
                for g in range(groups):
                    count = 0
                    for ky in range(max(0, reach - row), min(side, height + reach - row)):
                        for kx in range(max(0, reach - column), min(side, width + reach - column)):
                            tap = (g * side + ky) * side + kx
                            weights[count] = kernels[corner + tap * strides[1]]
                            y, z = row + ky - reach, column + kx - reach
                            pixels[count] = ((image * height + y) * width + z) * channels + (
                                g * share
                            )
                            count += 1
                    at = np.uint64(pixel * channels + g * share)
                    add_scaled(out, at, weights, x, pixels, count, np.uint64(share))


@kernel
def write_products(out, positions, a, a_row, b, b_rows, count, length):
    """``out[place] = a_row @ b_row`` for ``count`` rows of ``b``, four at a time."""
    m = 0
    while m + 4 <= count:
        b0, b1, b2, b3 = b_rows[m], b_rows[m + 1], b_rows[m + 2], b_rows[m + 3]
        s0 = s1 = s2 = s3 = out.dtype.type(0)
        for i in range(length):
            value = a[a_row + i]
            s0 += value * b[b0 + i]
            s1 += value * b[b1 + i]
            s2 += value * b[b2 + i]
            s3 += value * b[b3 + i]
        out[positions[m]], out[positions[m + 1]] = s0, s1
        out[positions[m + 2]], out[positions[m + 3]] = s2, s3
        m += 4
    while m < count:
        b0 = b_rows[m]
        s0 = out.dtype.type(0)
        for i in range(length):
            s0 += a[a_row + i] * b[b0 + i]
        out[positions[m]] = s0
        m += 1


@kernel
def similarity_pixels(
    start, stop, query, key, out, strides, groups, share, height, width, side, scale
):
    """Inner products with windows; a block is ``(image, coarse row)``."""
    reach, channels = side // 2, groups * share
    positions = np.empty(side * side, np.uint64)
    pixels = np.empty(side * side, np.uint64)
    for block in range(start, stop):
        image, row = block // height, block % height
        for fine_row in range(row * scale, row * scale + scale):
            for fine_column in range(scale * width):
                column = fine_column // scale
                corner = image * strides[0] + fine_row * strides[2] + fine_column * strides[3]
                pixel = (image * scale * height + fine_row) * scale * width + fine_column
                for g in range(groups):
                    count = 0
                    for tap in range(side * side):
                        y, z = row + tap // side - reach, column + tap % side - reach
                        place = corner + (g * side * side + tap) * strides[1]
                        if 0 <= y < height and 0 <= z < width:
                            positions[count] = place
                            pixels[count] = ((image * height + y) * width + z) * channels + (
                                g * share
                            )
                            count += 1
                        else:
                            out[place] = 0
                    at = np.uint64(pixel * channels + g * share)
                    write_products(out, positions, query, at, key, pixels, count, np.uint64(share))


@kernel
def transposed_pixels(
    start, stop, kernels, strides, fine, out, groups, share, height, width, side, scale
):
    """The transpose of reassembly; a block is ``(image, coarse row)``."""
    reach, channels = side // 2, groups * share
    weights = np.empty((side * scale) ** 2, out.dtype)
    pixels = np.empty((side * scale) ** 2, np.uint64)
    for block in range(start, stop):
        image, row = block // height, block % height
        for column in range(width):
            pixel = (image * height + row) * width + column
            out[pixel * channels : (pixel + 1) * channels] = 0
            for g in range(groups):
                count = 0
                for tap in range(side * side):
                    y = row - tap // side + reach  # the parent that has this pixel at this tap
                    z = column - tap % side + reach
                    if y < 0 or y >= height or z < 0 or z >= width:
                        continue
                    corner = image * strides[0] + (g * side * side + tap) * strides[1]
                    for fine_row in range(y * scale, y * scale + scale):
                        for fine_column in range(z * scale, z * scale + scale):
                            place = corner + fine_row * strides[2] + fine_column * strides[3]
                            weights[count] = kernels[place]
                            source = (image * scale * height + fine_row) * scale * width
                            pixels[count] = (source + fine_column) * channels + g * share
                            count += 1
                at = np.uint64(pixel * channels + g * share)
                add_scaled(out, at, weights, fine, pixels, count, np.uint64(share))
