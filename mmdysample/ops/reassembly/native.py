"""The native CPU kernels as operators of PyTorch: autograd of any order, compile."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmdysample.ops.backend import runs_eagerly
from mmdysample.ops.layout import is_channels_last, memory_format
from mmdysample.ops.reassembly.gradients import connect
from mmdysample.ops.reassembly.naive import sum_dtype

if TYPE_CHECKING:  # PyTorch alone brings no NumPy
    import numpy as np

BAND = 8
"""Coarse rows of a block, where there are enough: neighbours read the same rows."""


def _reassemble(
    x: Tensor, kernels: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    dtype = sum_dtype(x, kernels)
    result = _new((*x.shape[:2], *kernels.shape[2:]), dtype, x)
    geometry = (x.shape[1] // groups, *x.shape[2:], kernel_size, scale_factor)
    if is_channels_last(x):
        weights, strides = _either_layout(kernels, dtype)
        arrays = (_pixels(x, dtype), weights, strides, _pixels(result, dtype), groups)
        _run('reassemble_pixels', x.shape[0] * x.shape[2], *arrays, *geometry)
    else:
        arrays = (_planes(tensor, dtype) for tensor in (x, kernels, result))
        blocks, band = _bands(x.shape[0] * groups, x.shape[2])
        _run('reassemble_planes', blocks, *arrays, *geometry, band)
    return result.to(x.dtype)


def _similarity(
    query: Tensor, key: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    shape = (query.shape[0], groups * kernel_size**2, *query.shape[2:])
    out = _new(shape, sum_dtype(query, key))
    geometry = (key.shape[1] // groups, *key.shape[2:], kernel_size, scale_factor)
    if is_channels_last(key):
        result, strides = _either_layout(out, out.dtype)
        arrays = (_pixels(query, out.dtype), _pixels(key, out.dtype), result, strides, groups)
        _run('similarity_pixels', key.shape[0] * key.shape[2], *arrays, *geometry)
    else:
        arrays = (_planes(tensor, out.dtype) for tensor in (query, key, out))
        _run('similarity_planes', key.shape[0] * groups * key.shape[2], *arrays, *geometry)
    return out


def _transposed(
    kernels: Tensor, fine: Tensor, kernel_size: int, groups: int, scale_factor: int
) -> Tensor:
    """``(N, C, H, W)``: the transpose of reassembly, applied to ``fine`` and laid out as it."""
    n, channels, height, width = fine.shape
    shape = (n, channels, height // scale_factor, width // scale_factor)
    out = _new(shape, sum_dtype(kernels, fine), fine)
    geometry = (out.shape[1] // groups, *out.shape[2:], kernel_size, scale_factor)
    if is_channels_last(fine):
        weights, strides = _either_layout(kernels, out.dtype)
        arrays = (weights, strides, _pixels(fine, out.dtype), _pixels(out, out.dtype), groups)
        _run('transposed_pixels', out.shape[0] * out.shape[2], *arrays, *geometry)
    else:
        arrays = (_planes(tensor, out.dtype) for tensor in (kernels, fine, out))
        blocks, band = _bands(out.shape[0] * groups, out.shape[2])
        _run('transposed_planes', blocks, *arrays, *geometry, band)
    return out


_reassemble_operator, _similarity_operator, _transposed_operator = (
    torch.library.custom_op(f'mmdysample::{name}_native', function, mutates_args=())
    for name, function in (
        ('reassemble', _reassemble),
        ('window_similarity', _similarity),
        ('reassemble_transposed', _transposed),
    )
)
_OPERATORS = connect(_reassemble_operator, _similarity_operator, _transposed_operator)
_FUNCTIONS = connect(_reassemble, _similarity, _transposed)


def reassemble_native(x: Tensor, kernels: Tensor, *geometry: int) -> Tensor:
    """``(N, C, sH, sW)``: sum of each window of ``x``, weighted by ``kernels``; laid out as x."""
    run, _, _ = _FUNCTIONS if runs_eagerly(x, kernels) else _OPERATORS
    return run(x, kernels, *geometry)


def similarity_native(query: Tensor, key: Tensor, *geometry: int) -> Tensor:
    """``(N, G*k*k, sH, sW)``: inner products of ``query`` with each window of ``key``."""
    _, run, _ = _FUNCTIONS if runs_eagerly(query, key) else _OPERATORS
    return run(query, key, *geometry)


@_reassemble_operator.register_fake
def _empty_reassembled(x, kernels, kernel_size, groups, scale_factor):
    return _empty(x, (*x.shape[:2], *kernels.shape[2:]), x.dtype)


@_similarity_operator.register_fake
def _empty_similarity(query, key, kernel_size, groups, scale_factor):
    shape = (query.shape[0], groups * kernel_size**2, *query.shape[2:])
    return query.new_empty(shape, dtype=sum_dtype(query, key))


@_transposed_operator.register_fake
def _empty_transposed(kernels, fine, kernel_size, groups, scale_factor):
    n, channels, height, width = fine.shape
    shape = (n, channels, height // scale_factor, width // scale_factor)
    return _empty(fine, shape, sum_dtype(kernels, fine))


def _new(shape: tuple[int, ...], dtype: torch.dtype, like: Tensor | None = None) -> Tensor:
    """Memory for a result, in NCHW or laid out as ``like``."""
    layout = torch.contiguous_format if like is None else memory_format(like)
    return _numba('mmdysample.ops.native').empty(shape, dtype, layout)


def _empty(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    layout = memory_format(like)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=layout)


def _planes(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    return x.detach().to(dtype).contiguous().view(-1).numpy()


def _pixels(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    x = x.detach().to(dtype).contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1).view(-1).numpy()


def _either_layout(x: Tensor, dtype: torch.dtype) -> tuple[np.ndarray, tuple[int, ...]]:
    """Flat memory and element strides; a copy only where the layout is neither of the two."""
    if is_channels_last(x):
        _, channels, height, width = x.shape
        return _pixels(x, dtype), (height * width * channels, 1, width * channels, channels)
    return _planes(x, dtype), x.contiguous().stride()


def _bands(maps: int, height: int) -> tuple[int, int]:
    """How many blocks of rows the maps are cut into, and the rows of each."""
    band = max(1, min(BAND, maps * height // (torch.get_num_threads() * 4)))
    return maps * -(-height // band), band


def _run(name: str, blocks: int, *arguments) -> None:
    module = 'native_' + name.split('_')[1]  # of planes or of pixels
    kernel = getattr(_numba(f'mmdysample.ops.reassembly.{module}'), name)
    _numba('mmdysample.ops.native').run(kernel, blocks, *arguments)


def _numba(module: str) -> ModuleType:
    """Numba is slow to import, so what needs it waits for the first call."""
    return import_module(module)
