"""Downsampling by points from its description, in float64 loops over single values."""

from __future__ import annotations

import torch
from oracles.points import clamped, read_point
from torch import Tensor


def downsample_loops(x: Tensor, offset: Tensor, scale_factor: int, init: str) -> Tensor:
    """Average what the points of each output pixel read; everything in float64.

    ``offset`` is ``(N, G, 2, H, W)``, or ``(N, G, 2, h, w)`` with one point an output pixel.
    """
    s, (height, width), groups = scale_factor, x.shape[-2:], offset.shape[1]
    out_h, out_w = (height + s - 1) // s, (width + s - 1) // s
    images = []
    for image, moves in zip(x.double(), offset.double(), strict=True):
        parts = []
        for feature, (move_x, move_y) in zip(image.chunk(groups), moves, strict=True):
            rows = []
            for i in range(out_h):
                row = []
                for j in range(out_w):
                    read = []
                    for top, left in points(i, j, s, height, width, init):
                        own = (i, j) if init == 'strided' else (top, left)
                        place = top + s * move_y[own], left + s * move_x[own]
                        read.append(read_point(feature, *clamped(*place, height, width)))
                    row.append(sum(read) / len(read))
                rows.append(torch.stack(row, -1))
            parts.append(torch.stack(rows, -2))
        images.append(torch.cat(parts))
    return torch.stack(images)


def points(i: int, j: int, s: int, height: int, width: int, init: str) -> list[tuple[int, int]]:
    """Rows and columns where the points of an output pixel start."""
    if init == 'strided':
        return [(s * i, s * j)]
    window = [(s * i + a, s * j + b) for a in range(s) for b in range(s)]
    return [(row, column) for row, column in window if row < height and column < width]
