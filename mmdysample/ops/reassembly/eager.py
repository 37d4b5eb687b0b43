"""Windowed reassembly and similarity in plain PyTorch, row by row, with lean gradients.

Both operators multiply two small matrices per low-resolution pixel and channel group: its ``s * s``
output pixels (``kernels`` or ``query``) by its ``k x k`` window. Their gradients are these same two
products and a third, which spreads values over the windows; so the three are closed under
differentiation, of any order. Windows are gathered for a few rows at a time and never kept: beside
arguments and results there is one padded copy of ``x``, at low resolution.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdysample.ops.dysample import full_precision
from mmdysample.ops.layout import memory_format
from mmdysample.ops.reassembly.gradients import connect
from mmdysample.ops.reassembly.naive import sum_dtype

_WINDOW_ELEMENTS = {'cpu': 2**20, 'cuda': 2**26}
"""Window values gathered at once, by device: what stays in a cache, or fills a GPU."""


def _reassemble(x: Tensor, kernels: Tensor, kernel_size: int, groups: int, scale: int) -> Tensor:
    """``(s*s, k*k) @ (k*k, C/G)`` per pixel and group; in the dtype and memory format of ``x``."""
    n, channels, height, width = x.shape
    padded = _pad(x, kernel_size, sum_dtype(x, kernels))
    out = torch.empty(
        (n, channels, scale * height, scale * width),
        dtype=x.dtype,
        device=x.device,
        memory_format=memory_format(x),
    )
    for rows, fine_rows in _chunks(x, kernel_size, scale):
        weights = _per_pixel(kernels[:, :, fine_rows], groups, scale)
        target = _per_pixel(out[:, :, fine_rows], groups, scale)
        values = _multiply(_flatten(weights), _windows(padded, rows, kernel_size, groups))
        target.copy_(values.view(target.shape))
    return out


def _similarity(query: Tensor, key: Tensor, kernel_size: int, groups: int, scale: int) -> Tensor:
    """``(s*s, C/G) @ (C/G, k*k)`` per pixel and group; in float32 or wider."""
    n, _, height, width = key.shape
    padded = _pad(key, kernel_size, sum_dtype(query, key))
    out = padded.new_empty(n, groups * kernel_size**2, scale * height, scale * width)
    for rows, fine_rows in _chunks(key, kernel_size, scale):
        vectors = _per_pixel(query[:, :, fine_rows], groups, scale)
        target = _per_pixel(out[:, :, fine_rows], groups, scale)
        values = _multiply(_flatten(vectors), _windows(padded, rows, kernel_size, groups).mT)
        target.copy_(values.view(target.shape))
    return out


def _transposed(kernels: Tensor, y: Tensor, kernel_size: int, groups: int, scale: int) -> Tensor:
    """``(k*k, s*s) @ (s*s, C/G)`` per pixel and group, added up; in float32 or wider."""
    height, width = y.shape[2] // scale, y.shape[3] // scale
    x = y.new_zeros(*y.shape[:2], height, width)
    padded = _pad(x, kernel_size, sum_dtype(kernels, y))
    for rows, fine_rows in _chunks(x, kernel_size, scale):
        weights = _per_pixel(kernels[:, :, fine_rows], groups, scale)
        values = _per_pixel(y[:, :, fine_rows], groups, scale)
        products = _multiply(_flatten(weights).mT, _flatten(values).to(padded.dtype))
        products = products.view(*values.shape[:4], kernel_size**2, values.shape[-1])
        for tap in range(kernel_size**2):
            top, left = divmod(tap, kernel_size)
            window = padded[:, rows.start + top : rows.stop + top, left : left + width]
            window += products[..., tap, :].flatten(3)
    r = kernel_size // 2
    inner = padded[:, r : r + height, r : r + width].permute(0, 3, 1, 2)
    return inner.contiguous(memory_format=memory_format(y))


def _chunks(x: Tensor, kernel_size: int, scale: int) -> Iterator[tuple[slice, slice]]:
    """Slices of rows whose windows fit the budget, and of the output rows that they become."""
    n, channels, height, width = x.shape
    budget = _WINDOW_ELEMENTS.get(x.device.type, _WINDOW_ELEMENTS['cuda'])
    count = max(1, budget // max(1, n * channels * width * kernel_size**2))
    for start in range(0, height, count):
        stop = min(start + count, height)
        yield slice(start, stop), slice(scale * start, scale * stop)


def _pad(x: Tensor, kernel_size: int, dtype: torch.dtype) -> Tensor:
    """``(N, C, H, W)`` to ``(N, H + 2r, W + 2r, C)`` with a border of zeros."""
    r = kernel_size // 2
    return F.pad(x.permute(0, 2, 3, 1).to(dtype), (0, 0, r, r, r, r)).contiguous()


def _windows(padded: Tensor, rows: slice, kernel_size: int, groups: int) -> Tensor:
    """The windows of some rows: ``(N * h * W * G, k * k, C/G)``."""
    band = padded[:, rows.start : rows.stop + kernel_size - 1]
    views = band.unfold(1, kernel_size, 1).unfold(2, kernel_size, 1)
    return views.unflatten(3, (groups, -1)).permute(0, 1, 2, 3, 5, 6, 4).flatten(0, 3).flatten(1, 2)


def _per_pixel(fine: Tensor, groups: int, scale: int) -> Tensor:
    """View ``(N, G*D, s*h, s*W)`` as ``(N, h, W, G, s, s, D)``."""
    blocks = fine.unflatten(3, (-1, scale)).unflatten(2, (-1, scale)).unflatten(1, (groups, -1))
    return blocks.permute(0, 3, 5, 1, 4, 6, 2)


def _flatten(per_pixel: Tensor) -> Tensor:
    """``(N, h, W, G, s, s, D)`` to ``(N * h * W * G, s * s, D)``."""
    return per_pixel.flatten(0, 3).flatten(1, 2)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    """Batched matrix product in the dtype of ``b``, whatever autocast would choose."""
    with full_precision(b.device):
        return torch.bmm(a.to(b.dtype), b)


reassemble_eager, window_similarity_eager, _ = connect(_reassemble, _similarity, _transposed)
