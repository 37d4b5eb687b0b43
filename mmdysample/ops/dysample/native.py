"""DySample's sampling on the CPU: the native kernels behind tensors."""

from __future__ import annotations

from math import gcd, prod

import numpy as np
import torch
from torch import Tensor

from mmdysample.ops.dysample.layout import is_channels_last
from mmdysample.ops.dysample.native_backward import backward_last, backward_planes
from mmdysample.ops.dysample.native_forward import forward_last, forward_planes
from mmdysample.ops.dysample.spec import SamplingSpec
from mmdysample.ops.native import PARTS_PER_THREAD, run

BAND = 8
"""Output rows of a block, NCHW: more share a buffer of turned rows, fewer keep it in the cache."""


def sample(
    x: Tensor, offset: Tensor, scope: Tensor | None, spec: SamplingSpec, size: tuple[int, int]
) -> Tensor:
    """Sample ``x``; all tensors dense, and the result laid out as ``x`` is."""
    dtype = x.dtype
    x, offset, scope = _alike(x, offset, scope)
    out = _empty(x, size)
    tensors = (_flat(x), *_projections(offset, scope), _flat(out))
    options = _options(x, offset, scope, spec, size)
    if is_channels_last(x):
        run(forward_last, len(x) * size[0], *tensors, options)
    else:
        blocks = len(x) * spec.groups * -(-size[0] // BAND)
        run(forward_planes, blocks, *tensors, options, BAND)
    return out.to(dtype)


def differentiate(
    grad: Tensor,
    x: Tensor,
    offset: Tensor,
    scope: Tensor | None,
    spec: SamplingSpec,
    *results: Tensor | None,
) -> None:
    """Add the gradients of x, offset and scope to the tensors given for them; all dense.

    ``grad`` and the first are laid out as ``x`` is, the others as ``offset``.
    """
    grad, x, offset, scope, *computed = _alike(grad, x, offset, scope, *results)
    grad_x, grad_offset, grad_scope = computed
    read = (_flat(grad), _flat(x), *_projections(offset, scope))
    to_x = None if grad_x is None else _flat(grad_x)
    to_offset = (None, None) if grad_offset is None else _projections(grad_offset, grad_scope)
    options = _options(x, offset, scope, spec, grad.shape[2:])
    last = is_channels_last(x)
    kernel, band = (backward_last, 1) if last else (backward_planes, BAND)
    ends = () if last else (BAND,)
    images, groups, threads = len(x), spec.groups, torch.get_num_threads()
    rows, vectors = -(-grad.shape[2] // band), -(-x.shape[1] // groups // 8)
    # One pass over groups for both; where that leaves threads idle, one over rows and one over
    # channels. Each number is written by one block in either case, and summed in the same order.
    share = -(-threads // (images * groups))
    passes = []
    if to_x is not None and grad_offset is not None and share == 1:
        parts = min(groups, threads // gcd(images, threads)) if last else groups
        passes.append((to_x, to_offset, (1, parts, 1)))
    else:
        if grad_offset is not None:
            parts = min(rows, threads * PARTS_PER_THREAD)
            passes.append((None, to_offset, (parts, 1 if last else groups, 1)))
        if to_x is not None:
            parts = min(vectors, share * PARTS_PER_THREAD)
            passes.append((to_x, (None, None), (1, groups, parts)))
    for to_x, to_offset, split in passes:
        run(kernel, images * prod(split), *read, to_x, *to_offset, options, split, *ends)
    for result, ours in zip(results, computed, strict=True):
        if ours is not result:  # another dtype was needed
            result.copy_(ours)


def _alike(*tensors: Tensor | None) -> list[Tensor | None]:
    """The tensors in the widest dtype among them, which in most calls they have."""
    wide = any(t is not None and t.dtype == torch.float64 for t in tensors)
    dtype = torch.float64 if wide else torch.float32
    return [None if t is None else t.to(dtype) for t in tensors]


def _empty(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Memory for the result, from NumPy, which asks for huge pages where it is large.

    The first touch of small pages takes as long as the sampling.
    """
    kind = torch.empty(0, dtype=x.dtype).numpy().dtype
    n, channels = x.shape[:2]
    if is_channels_last(x):
        return torch.from_numpy(np.empty((n, *size, channels), kind)).permute(0, 3, 1, 2)
    return torch.from_numpy(np.empty((n, channels, *size), kind))


def _flat(tensor: Tensor) -> np.ndarray:
    """The memory of a dense tensor as a flat array."""
    if is_channels_last(tensor):
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.detach().view(-1).numpy()


def _projections(offset: Tensor, scope: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    flat = _flat(offset)
    return flat, flat if scope is None else _flat(scope)


def _options(
    x: Tensor, offset: Tensor, scope: Tensor | None, spec: SamplingSpec, size: tuple[int, int]
) -> tuple:
    shape = (*x.shape[1:], spec.groups, *size, spec.scale_factor)
    factor = torch.empty(0, dtype=x.dtype).numpy().dtype.type(spec.scope_factor)
    flags = (spec.style == 'pl', scope is not None, spec.init == 'nearest')
    return shape, offset.stride(), factor, flags
