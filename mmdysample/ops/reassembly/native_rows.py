"""Rows of NCHW maps inside the kernels of reassembly: what the three products share."""

from __future__ import annotations

from mmdysample.ops.native import part
from mmdysample.ops.pointers import load, load_like, skip, store
from mmdysample.ops.simd import LANES, evens_and_odds, splat, wide


def along_row(function):
    """Make of ``function(like, i, ...)`` one that does a whole row, in vectors and single numbers.

    ``like`` is a vector of zeros, or zero, that says how many columns to do, and ``i`` the first.
    """

    @part
    def run(zero, width, *arguments):
        sixteens, eights = width // 16 * 16, width // 8 * 8
        for i in range(0, sixteens, 16):
            function(wide(zero), i, *arguments)
        for i in range(sixteens, eights, 8):
            function(splat(zero), i, *arguments)
        for i in range(eights, width):
            function(zero, i, *arguments)

    return run


@part
def _fill(target, count):
    for i in range(count):
        target[i] = 0


@part
def _copy(source, target, count):
    vectors = count // LANES * LANES
    for i in range(0, vectors, LANES):
        store(target, i, load(source, i))
    for i in range(vectors, count):
        target[i] = source[i]


@part
def pad(x, plane, first, rows, height, width, reach, target):
    """Copy ``rows`` rows from row ``first - reach`` on, with zeros outside the map."""
    line = width + 2 * reach
    for i in range(rows):
        y = first - reach + i
        to = skip(target, i * line)
        if 0 <= y < height:
            _fill(to, reach)
            _copy(skip(x, (plane * height + y) * width), skip(to, reach), width)
            _fill(skip(to, reach + width), reach)
        else:
            _fill(to, line)


@part
def split(like, source, width, scale, target, step):
    """Copy a fine row so that the columns of each phase lie together, ``step`` numbers apart."""
    done = 0
    if scale == 2:
        done = width // LANES * LANES
        for column in range(0, done, LANES):
            even, odd = evens_and_odds(load_like(source, 2 * column, like))
            store(target, column, even)
            store(target, step + column, odd)
    for j in range(scale):
        for column in range(done, width):
            target[j * step + column] = source[column * scale + j]


@part
def four(first, last, step):
    """Where four channels begin, ``step`` numbers apart; none lies behind the last."""
    return (
        first * step,
        min(first + 1, last) * step,
        min(first + 2, last) * step,
        min(first + 3, last) * step,
    )


@part
def four_phases(row, column, scale, step):
    """Where two columns begin in each of two rows of phases, the last in place of those behind."""
    right, below = min(column + 1, scale - 1), min(row + 1, scale - 1)
    return (
        (row * scale + column) * step,
        (row * scale + right) * step,
        (below * scale + column) * step,
        (below * scale + right) * step,
    )


@part
def _place(tap, side, row, column):
    """Where a tap begins, or the last of all instead of one behind it."""
    tap = min(tap, side * side - 1)
    return tap // side * row + tap % side * column


@part
def five(tap, side, row, column):
    """Where five taps begin if rows of a window are ``row`` numbers apart, columns ``column``."""
    return (
        _place(tap, side, row, column),
        _place(tap + 1, side, row, column),
        _place(tap + 2, side, row, column),
        _place(tap + 3, side, row, column),
        _place(tap + 4, side, row, column),
    )
