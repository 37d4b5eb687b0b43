"""Reassembly and its relatives as Triton kernels.

Three products per output pixel and channel group, each the others' gradient: of kernels with a
window (`reassemble`), of a vector with every tap of a window (`similarity`), and the transpose of
the first (`transposed`). Each result value is gathered by one program, so there are no atomics and
results repeat exactly. Maps are dense NCHW; accumulation is float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tile(height, width, channels, PIXELS: tl.constexpr, BLOCK: tl.constexpr, INDEX: tl.constexpr):
    """This program's image, block of channels, and pixels as (row, column, inside)."""
    program = tl.program_id(0).to(INDEX)
    tiles = tl.cdiv(height * width, PIXELS)
    blocks = tl.cdiv(channels, BLOCK)
    pixel = program % tiles * PIXELS + tl.arange(0, PIXELS)
    program = program // tiles
    first = program % blocks * BLOCK
    return program // blocks, first, pixel // width, pixel % width, pixel < height * width


@triton.jit(do_not_specialize=('H', 'W'))
def reassemble_kernel(
    X_ptr,  # input, (N, G * channels, H, W)
    Kernels_ptr,  # input, (N, G * SIDE**2, SCALE * H, SCALE * W)
    Out_ptr,  # output, (N, G * channels, SCALE * H, SCALE * W)
    H,
    W,
    channels,  # of a group
    SIDE: tl.constexpr,
    SCALE: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Sum of the window of every fine pixel, weighted by its kernel."""
    ng, first, row, column, inside = _tile(H * SCALE, W * SCALE, channels, PIXELS, BLOCK, INDEX)
    plane = H * W
    pixel = row * W * SCALE + column
    c = first + tl.arange(0, BLOCK)[:, None]
    total = tl.zeros([BLOCK, PIXELS], tl.float32)
    for tap in range(SIDE * SIDE):
        y = row // SCALE + tap // SIDE - SIDE // 2
        x = column // SCALE + tap % SIDE - SIDE // 2
        known = inside & (y >= 0) & (y < H) & (x >= 0) & (x < W)
        weight = (ng * SIDE * SIDE + tap) * plane * SCALE * SCALE + pixel
        weight = tl.load(Kernels_ptr + weight, mask=known, other=0.0).to(tl.float32)
        value = (ng * channels + c) * plane + (y * W + x)[None, :]
        value = tl.load(X_ptr + value, mask=known[None, :] & (c < channels), other=0.0)
        total += value.to(tl.float32) * weight[None, :]
    target = (ng * channels + c) * plane * SCALE * SCALE + pixel[None, :]
    tl.store(Out_ptr + target, total, mask=inside[None, :] & (c < channels))


@triton.jit(do_not_specialize=('H', 'W'))
def similarity_kernel(
    Query_ptr,  # input, (N, G * channels, SCALE * H, SCALE * W)
    Key_ptr,  # input, (N, G * channels, H, W)
    Out_ptr,  # output, (N, G * SIDE**2, SCALE * H, SCALE * W)
    H,
    W,
    channels,  # of a group
    SIDE: tl.constexpr,
    SCALE: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,  # a power of 2 that is at least SIDE**2
    INDEX: tl.constexpr,
):
    """Inner products of every fine pixel with all taps of its window, channel after channel.

    A program reads a query once and keeps a sum for each tap.
    """
    ng, _, row, column, inside = _tile(H * SCALE, W * SCALE, 1, PIXELS, 1, INDEX)
    row, column, inside = row[None, :], column[None, :], inside[None, :]
    plane, fine_plane = H * W, H * W * SCALE * SCALE
    pixel = row * W * SCALE + column
    tap = tl.arange(0, BLOCK)[:, None]
    y = row // SCALE + tap // SIDE - SIDE // 2
    x = column // SCALE + tap % SIDE - SIDE // 2
    taps = inside & (tap < SIDE * SIDE)
    known = taps & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    Query_ptr += ng * channels * fine_plane + pixel
    Key_ptr += ng * channels * plane + y * W + x
    total = tl.zeros([BLOCK, PIXELS], tl.float32)
    for _ in range(channels):
        query = tl.load(Query_ptr, mask=inside, other=0.0).to(tl.float32)
        total += tl.load(Key_ptr, mask=known, other=0.0).to(tl.float32) * query
        Query_ptr += fine_plane
        Key_ptr += plane
    place = (ng * SIDE * SIDE + tap) * fine_plane + pixel
    tl.store(Out_ptr + place, total, mask=taps)


@triton.jit(do_not_specialize=('H', 'W'))
def transposed_kernel(
    Kernels_ptr,  # input, (N, G * SIDE**2, SCALE * H, SCALE * W)
    Fine_ptr,  # input, (N, G * channels, SCALE * H, SCALE * W)
    Out_ptr,  # output, (N, G * channels, H, W)
    H,
    W,
    channels,  # of a group
    SIDE: tl.constexpr,
    SCALE: tl.constexpr,
    PIXELS: tl.constexpr,
    BLOCK: tl.constexpr,
    INDEX: tl.constexpr,
):
    """Each coarse pixel gathers from every fine pixel whose window it is in."""
    ng, first, row, column, inside = _tile(H, W, channels, PIXELS, BLOCK, INDEX)
    fine_plane = H * W * SCALE * SCALE
    c = first + tl.arange(0, BLOCK)[:, None]
    total = tl.zeros([BLOCK, PIXELS], tl.float32)
    for tap in range(SIDE * SIDE):
        y = row - tap // SIDE + SIDE // 2  # the parent that has this pixel at this tap
        x = column - tap % SIDE + SIDE // 2
        known = inside & (y >= 0) & (y < H) & (x >= 0) & (x < W)
        for sub in range(SCALE * SCALE):
            fine = (y * SCALE + sub // SCALE) * W * SCALE + x * SCALE + sub % SCALE
            weight = (ng * SIDE * SIDE + tap) * fine_plane + fine
            weight = tl.load(Kernels_ptr + weight, mask=known, other=0.0).to(tl.float32)
            value = (ng * channels + c) * fine_plane + fine[None, :]
            value = tl.load(Fine_ptr + value, mask=known[None, :] & (c < channels), other=0.0)
            total += value.to(tl.float32) * weight[None, :]
    target = (ng * channels + c) * H * W + (row * W + column)[None, :]
    tl.store(Out_ptr + target, total, mask=inside[None, :] & (c < channels))
