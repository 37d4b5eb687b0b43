"""Bilinear reading at points, value by value, in float64 and with zeros outside the map."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def read_point(feature: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """``(C,)`` of a feature ``(C, H, W)`` at one position in pixels; outer corners count 0."""
    height, width = feature.shape[-2:]
    top, left = math.floor(float(y.detach())), math.floor(float(x.detach()))
    total = feature.new_zeros(feature.shape[0])
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - (y - row).abs()) * (1 - (x - column).abs())
                total = total + weight * feature[:, row, column]
    return total


def clamped(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The position moved onto the outer pixel centres where it lies beyond them."""
    return torch.clamp(y, 0, height - 1), torch.clamp(x, 0, width - 1)
