"""A2U's filters on the CPU, compiled by Numba.

A plane is copied once with its even and odd columns apart and a border of zeros, ``(2H + 4)`` rows
of two times ``W + 2`` numbers. A tap of the filter is then a shift of a row, and all loops run
along contiguous rows.
"""

from __future__ import annotations

import numpy as np

from mmdysample.ops.filtering import SIDE
from mmdysample.ops.native import kernel
from mmdysample.ops.reassembly.native_pixels import add_scaled, write_products

TAPS = SIDE * SIDE


@kernel
def _split_columns(guide, plane, height, width, target):
    line = width + 2
    for row in range(2 * height):
        source = (plane * 2 * height + row) * 2 * width
        for parity in range(2):
            at = (2 * (row + 2) + parity) * line + 1
            for column in range(width):
                target[at + column] = guide[source + 2 * column + parity]


@kernel
def _tap_rows(row, width, rows):
    """Where the row of each tap begins in what :func:`_split_columns` writes."""
    for tap in range(TAPS):
        ky, kx = tap // SIDE, tap % SIDE
        rows[tap] = (2 * (2 * row + ky) + kx % 2) * (width + 2) + kx // 2


@kernel
def filter_planes(start, stop, guide, filters, out, sizes):
    """Filter; a block is a channel of a sample."""
    channels, planes, count, height, width = sizes
    split = np.zeros((2 * height + 4) * 2 * (width + 2), guide.dtype)
    rows = np.empty(TAPS, np.uint64)
    for plane in range(start, stop):
        _split_columns(guide, plane, height, width, split)
        for row in range(height):
            _tap_rows(row, width, rows)
            for f in range(count):
                first = (plane // channels * count + f) * TAPS
                at = ((f * planes + plane) * height + row) * width
                out[at : at + width] = 0
                add_scaled(
                    out, np.uint64(at), filters[first : first + TAPS], split, rows, TAPS,
                    np.uint64(width),
                )  # fmt: skip


@kernel
def filter_gradients(start, stop, guide, filters, grad, grad_guide, of_planes, sizes):
    """Gradients of the guide, and of the filters by each channel; blocks as for filtering."""
    channels, planes, count, height, width = sizes
    line = width + 2
    split = np.zeros((2 * height + 4) * 2 * line, guide.dtype)
    padded = np.zeros(count * (height + 2) * line, guide.dtype)
    rows = np.empty(TAPS, np.uint64)
    taps = np.arange(TAPS).astype(np.uint64)
    products = np.empty(TAPS, guide.dtype)
    sums = np.empty(width, guide.dtype)
    weights = np.empty(count * TAPS // 4, guide.dtype)
    weight_rows = np.empty(count * TAPS // 4, np.uint64)
    for plane in range(start, stop):
        _split_columns(guide, plane, height, width, split)
        of_planes[plane * count * TAPS : (plane + 1) * count * TAPS] = 0
        for f in range(count):
            for row in range(height):
                source = ((f * planes + plane) * height + row) * width
                at = (f * (height + 2) + row + 1) * line + 1
                padded[at : at + width] = grad[source : source + width]
                _tap_rows(row, width, rows)
                write_products(
                    products, taps, padded, np.uint64(at), split, rows, TAPS, np.uint64(width)
                )
                of_planes[(plane * count + f) * TAPS : (plane * count + f + 1) * TAPS] += products
        for row in range(2 * height):
            for parity in range(2):
                n = 0  # taps that this row and these columns of the guide have a part in
                for f in range(count):
                    for ky in range(row % 2, SIDE, 2):
                        for kx in range(parity, SIDE, 2):
                            first = (plane // channels * count + f) * TAPS
                            weights[n] = filters[first + ky * SIDE + kx]
                            fine = f * (height + 2) + row // 2 + 2 - ky // 2
                            weight_rows[n] = fine * line + 2 - kx // 2
                            n += 1
                sums[:] = 0
                add_scaled(sums, np.uint64(0), weights, padded, weight_rows, n, np.uint64(width))
                target = (plane * 2 * height + row) * 2 * width + parity
                for column in range(width):
                    grad_guide[target + 2 * column] = sums[column]
