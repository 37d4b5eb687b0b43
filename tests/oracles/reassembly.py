"""Windowed reassembly and similarity by loops, pixel by pixel, in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def window_taps(x: Tensor, row: int, column: int, kernel_size: int, scale: int) -> list[Tensor]:
    """``(N, C)`` values of the taps around the parent of a fine pixel, zeros outside the map."""
    n, channels, height, width = x.shape
    reach = (kernel_size - 1) // 2
    taps = []
    for ky in range(kernel_size):
        for kx in range(kernel_size):
            y, z = row // scale + ky - reach, column // scale + kx - reach
            inside = 0 <= y < height and 0 <= z < width
            taps.append(x[:, :, y, z] if inside else x.new_zeros(n, channels))
    return taps


def reassemble_oracle(
    x: Tensor, kernels: Tensor, kernel_size: int, groups: int, scale: int
) -> Tensor:
    x, kernels = x.double(), kernels.double()
    n, channels, height, width = x.shape
    rows = []
    for row in range(scale * height):
        pixels = []
        for column in range(scale * width):
            total = x.new_zeros(n, channels)
            for t, tap in enumerate(window_taps(x, row, column, kernel_size, scale)):
                weight = kernels[:, t :: kernel_size**2, row, column]  # (N, G)
                total = total + tap * weight.repeat_interleave(channels // groups, dim=1)
            pixels.append(total)
        rows.append(torch.stack(pixels, -1))
    return torch.stack(rows, -2)


def similarity_oracle(
    query: Tensor, key: Tensor, kernel_size: int, groups: int, scale: int
) -> Tensor:
    query, key = query.double(), key.double()
    n, _, fine_height, fine_width = query.shape
    out = query.new_zeros(n, groups * kernel_size**2, fine_height, fine_width)
    for row in range(fine_height):
        for column in range(fine_width):
            for t, tap in enumerate(window_taps(key, row, column, kernel_size, scale)):
                products = query[:, :, row, column] * tap
                sums = products.unflatten(1, (groups, -1)).sum(2)
                out[:, t :: kernel_size**2, row, column] = sums
    return out
