"""DySample's point sampling as a lookup of rows, for channels_last maps on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.ops.dysample.eager import sampling_positions

INT32_ELEMENTS = 2**31
"""What has so many elements is indexed in int64."""


def dysample_bag(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    scale_factor: int,
    groups: int,
    style: str,
    scope_factor: float,
    init: str,
    size: tuple[int, int],
) -> Tensor:
    """Sample through ``F.embedding_bag``; arguments as in :func:`mmdysample.ops.dysample`.

    In a channels_last map the channels of a group at a pixel are one contiguous row, so bilinear
    interpolation is a weighted bag of four rows: no transposition, and a channels_last result.
    """
    n, channels = x.shape[:2]
    rows, weights = four_rows(
        x, offset, scope, scale_factor, groups, style, scope_factor, init, size
    )
    sampled = F.embedding_bag(
        rows.flatten(),
        x.to(weights.dtype).permute(0, 2, 3, 1).reshape(-1, channels // groups),
        torch.arange(0, rows.numel(), 4, dtype=rows.dtype),  # where bags start
        per_sample_weights=weights.flatten(),
        mode='sum',
    )
    return sampled.view(n, *size, channels).permute(0, 3, 1, 2).to(x.dtype)


def four_rows(
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    scale_factor: int,
    groups: int,
    style: str,
    scope_factor: float,
    init: str,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """The four neighbours of every output pixel and group, and their bilinear weights.

    Returns:
        tuple[Tensor, Tensor]: Indices into the ``N * H * W * G`` rows of ``C / G`` channels that
        a channels_last ``x`` consists of, and float32 or wider weights; each
        ``(N * h' * w' * G, 4)``. Indices are int32 where that can count both, int64 otherwise.
    """
    n, _, height, width = x.shape
    px, py = sampling_positions(
        x, offset, scope, scale_factor, groups, style, scope_factor, init, size
    )
    # Sorting indices is a good part of the lookup's backward pass, and half as long in int32.
    index = torch.int32 if 4 * px.numel() < INT32_ELEMENTS else torch.int64
    left, right, left_weight, right_weight = _neighbours(px, width, index)
    top, bottom, top_weight, bottom_weight = _neighbours(py, height, index)
    image = torch.arange(n, dtype=index, device=x.device).view(n, 1, 1, 1) * height
    top, bottom = (image + top) * width, (image + bottom) * width
    pixels = torch.stack((top + left, top + right, bottom + left, bottom + right), dim=-1)
    weights = torch.stack(
        (
            top_weight * left_weight,
            top_weight * right_weight,
            bottom_weight * left_weight,
            bottom_weight * right_weight,
        ),
        dim=-1,
    )
    group = torch.arange(groups, dtype=index, device=x.device)[:, None]
    return (pixels * groups + group).view(-1, 4), weights.view(-1, 4)


def is_channels_last(x: Tensor) -> bool:
    """Whether a 4-D tensor is dense with its channels last, and not NCHW as well."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _neighbours(
    position: Tensor, length: int, index: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two pixels around each position on one axis, and their weights, groups last."""
    # hardtanh passes no gradient at its limits.
    position = F.hardtanh(position, 0, length - 1, inplace=True).permute(0, 2, 3, 1)
    lower = position.detach().nan_to_num().floor_()
    upper_weight = position - lower
    lower = lower.to(index)
    return lower, (lower + 1).clamp_(max=length - 1), 1 - upper_weight, upper_weight
