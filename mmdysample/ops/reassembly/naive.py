"""Reassembly and window similarity written as their definitions.

The tests hold every implementation to these functions, and exporters record them: they consist of
plain operators without writes into a buffer, so a graph made from them keeps all its sizes free.
Training takes another implementation, because these keep maps of output size for the gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def reassemble_naive(
    x: Tensor, kernels: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    r"""Weighted sum of a window, :math:`y_{c,Y,X} = \sum_t K_{g,t,Y,X}\, x_{c,t(Y,X)}`.

    Here :math:`g` is the group of channel :math:`c`, and :math:`t(Y,X)` is tap ``t`` of the window
    around the parent of ``(Y, X)`` (the reassembly module of CARAFE, arXiv 1905.02188).

    Args:
        x (Tensor): ``(N, C, H, W)``.
        kernels (Tensor): ``(N, G * k * k, sH, sW)``.
        kernel_size (int): Side ``k`` of the window, odd.
        groups (int): Channel groups ``G`` with kernels of their own.
        scale_factor (int): The factor ``s``.

    Returns:
        Tensor: ``(N, C, sH, sW)`` in the dtype of ``x``, summed in float32 or wider.
    """
    dtype = sum_dtype(x, kernels)
    weights = kernels.to(dtype).unflatten(1, (groups, kernel_size**2))
    taps = _window_taps(x.to(dtype), kernel_size, groups, scale_factor)
    products = [weights[:, :, t, None] * tap for t, tap in enumerate(taps)]
    return sum(products).flatten(1, 2).to(x.dtype)


def window_similarity_naive(
    query: Tensor, key: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    r"""Inner products with a window, :math:`z_{g,t,Y,X} = \sum_c q_{c,Y,X}\, k_{c,t(Y,X)}`.

    The sum is over the channels of group :math:`g` (the similarity of SAPA, arXiv 2209.12866).

    Args:
        query (Tensor): ``(N, C, sH, sW)``.
        key (Tensor): ``(N, C, H, W)``.
        kernel_size (int): Side ``k`` of the window, odd.
        groups (int): Channel groups ``G`` compared apart.
        scale_factor (int): The factor ``s``.

    Returns:
        Tensor: ``(N, G * k * k, sH, sW)`` in float32 or wider.
    """
    dtype = sum_dtype(query, key)
    vectors = query.to(dtype).unflatten(1, (groups, -1))
    taps = _window_taps(key.to(dtype), kernel_size, groups, scale_factor)
    return torch.stack([(vectors * tap).sum(2) for tap in taps], 2).flatten(1, 2)


def sum_dtype(a: Tensor, b: Tensor) -> torch.dtype:
    """The dtype in which products of ``a`` and ``b`` are summed: float32 or wider."""
    return torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)


def repeat_pixels(x: Tensor, scale_factor: int) -> Tensor:
    """Copy each pixel to a block of ``s x s``: ``(N, C, H, W)`` to ``(N, C, sH, sW)``.

    ``F.interpolate`` finds a parent by multiplying with a rounded ``1 / s`` and is one pixel off at
    factors such as 41 and 47. Nothing is multiplied here.
    """
    repeats = (-1, -1, -1, scale_factor, -1, scale_factor)
    return x[:, :, :, None, :, None].expand(repeats).flatten(4, 5).flatten(2, 3)


def _window_taps(x: Tensor, kernel_size: int, groups: int, scale_factor: int) -> list[Tensor]:
    """For each tap its value at all output pixels, ``(N, G, C/G, sH, sW)``; zero outside ``x``."""
    border = (kernel_size // 2,) * 4
    fine = repeat_pixels(F.pad(x, border), scale_factor).unflatten(1, (groups, -1))
    # A tap starts so many pixels from one side and ends so many from the other. Exporters take
    # slices with constant bounds faster than those that are computed from sizes.
    starts = [scale_factor * step for step in range(kernel_size)]
    stops = [-start or None for start in reversed(starts)]
    bounds = [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]
    rows = [fine[..., bound, :] for bound in bounds]
    return [row[..., bound] for row in rows for bound in bounds]
