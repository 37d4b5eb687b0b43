"""The three products of reassembly for channels_last maps on the CPU, compiled by Numba.

Loops run over the contiguous channels of a group. A block is one coarse row of an image. Each value
is summed by one block, without atomics and in one order, so results do not depend on the number of
threads. All maps are flat arrays. Kernels and similarities come with their element strides
``(image, channel, row, column)``, for both layouts occur.
"""

from __future__ import annotations

import numpy as np

from mmdysample.ops.native import kernel


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
