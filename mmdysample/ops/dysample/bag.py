"""DySample's point sampling as a lookup of rows, for channels_last maps on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.ops.dysample.reference import sampling_positions


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
        rows,
        x.to(weights.dtype).permute(0, 2, 3, 1).reshape(-1, channels // groups),
        per_sample_weights=weights,
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
        ``(N * h' * w' * G, 4)``.
    """
    n, _, height, width = x.shape
    positions = sampling_positions(
        x, offset, scope, scale_factor, groups, style, scope_factor, init, size
    )
    px, py = (axis.permute(0, 2, 3, 1) for axis in positions)
    left, right, left_weight, right_weight = _neighbours(px, width)
    top, bottom, top_weight, bottom_weight = _neighbours(py, height)
    image = torch.arange(n, device=x.device).view(n, 1, 1, 1) * height
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
    group = torch.arange(groups, device=x.device)[:, None]
    return (pixels * groups + group).view(-1, 4), weights.view(-1, 4)


def is_channels_last(x: Tensor) -> bool:
    """Whether a 4-D tensor is dense with its channels last, and not NCHW as well."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _neighbours(position: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two pixels around each position on one axis, and their weights."""
    position = F.hardtanh(position, 0, length - 1)  # passes no gradient at its limits
    lower = position.detach().nan_to_num().floor()
    upper_weight = position - lower
    lower = lower.long()
    return lower, (lower + 1).clamp_(max=length - 1), 1 - upper_weight, upper_weight
